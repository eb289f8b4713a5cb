"""Connected components of a mask."""

from __future__ import annotations

import numpy as np

from medseg.images.run_length import Integers, Runs


def components(runs: Runs, *, corners: bool) -> tuple[Integers, int]:
    """The index (from 0) of the connected component that each run belongs to, and the number of components.

    Args:
        runs: The runs of a mask.
        corners: Whether voxels that share an edge or a corner are connected (26-connectivity), or
            only those that share a face (6-connectivity).
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    number, count = np.zeros(len(runs.start), dtype=np.intp), 0
    crossing = [np.zeros((2, 0), dtype=np.intp)]
    for before, first, last in runs.bounds():
        # Components within this slab first; links to the slice before it are collected for the second pass.
        one, other = _touching(runs, before, first, last, corners)
        inside = one >= first
        links = (one[inside] - first, other[inside] - first)
        graph = coo_array((np.ones(len(links[0]), dtype=np.bool_), links), shape=(last - first,) * 2)
        found, numbers = connected_components(graph, directed=False)
        number[first:last] = numbers + count
        count += found
        crossing.append(np.stack([number[one[~inside]], number[other[~inside]]]))
    links = tuple(np.concatenate(crossing, axis=1))
    graph = coo_array((np.ones(len(links[0]), dtype=np.bool_), links), shape=(count, count))
    total, numbers = connected_components(graph, directed=False)
    return numbers.astype(np.intp)[number], total


def filled(mask: Runs) -> Runs:
    """The mask with its holes: background that is not connected to the faces of the foreground's box.

    Background voxels are connected if they share a face (6-connectivity).
    """
    gaps, at_face = mask.gaps()
    part, count = components(gaps, corners=False)
    outside = np.zeros(count, dtype=np.bool_)
    outside[part[at_face]] = True
    return mask.joined(gaps.kept(~outside[part]))


def _touching(runs: Runs, before: int, first: int, last: int, corners: bool) -> tuple[Integers, Integers]:
    """Pairs of touching runs: one from ``before`` to ``last``, and a later one from ``first`` to ``last``."""
    _, height, width = runs.extent
    reach = int(corners)
    rows = runs.start[before:last] // width
    # Rows are padded by two voxels, so that a run at the end of a row does not touch the next row.
    start, stop = runs.start[before:last] + 2 * rows, runs.stop[before:last] + 2 * rows
    own, column = slice(first - before, None), rows[first - before :] % height
    ones, others = [], []
    # Earlier rows that touch a row: one in its own slice, the others in the slice before.
    for slices, step in ((0, -1), (-1, 0), *(((-1, -1), (-1, 1)) if corners else ())):
        away = (slices * height + step) * (width + 2)
        low = np.searchsorted(stop, start[own] + away - reach, side="right")
        high = np.searchsorted(start, stop[own] + away + reach, side="left")
        many = np.where((column + step >= 0) & (column + step < height), np.maximum(high - low, 0), 0)
        after = np.repeat(np.arange(first, last), many)
        within = np.arange(len(after)) - np.repeat(np.cumsum(many) - many, many)
        ones.append(before + np.repeat(low, many) + within)
        others.append(after)
    return np.concatenate(ones), np.concatenate(others)
