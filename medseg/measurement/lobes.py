"""The lobes of the lungs: their measures, and the CT severity score of lesions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from medseg.images.label import Label
from medseg.images.run_length import Array
from medseg.inference.lobe_checks import lobe_of
from medseg.measurement import measures
from medseg.measurement.lung_measures import LungScan
from medseg.measurement.measurement_table import BOTH, WHOLE, StructureMeasures
from medseg.measurement.regions import value_distribution

LOBES = (("right", "upper"), ("right", "middle"), ("right", "lower"), ("left", "upper"), ("left", "lower"))
"""The five lobes; lobe maps hold 1 plus the place in this list."""

SEVERITY_PERCENT = (5.0, 25.0, 50.0, 75.0)
"""Upper ends of the scores 1 to 4; exactly 5 % has the score 2, and each other end its own score."""

DEFINITIONS = {
    "involved_percent": "share of the lobe with its lesions that is lesion",
    "ct_severity": "0 without lesions, 1 below 5 % of the lobe, 2 up to 25 %, 3 up to 50 %, 4 up to 75 %, "
    "else 5; for both lungs the sum of the five lobes, 0 to 25",
}
"""Columns of lobes with lesions; the source is ``pan2020``."""


def lobe_map(array: Array, labels: Sequence[Label]) -> Array:
    """1 to 5 for the voxels of the five `LOBES`, else 0; uint8, of the shape of a label map.

    Args:
        array: The label map.
        labels: Its labels; a name such as ``lung_upper_lobe_left`` is a lobe.
    """
    found = np.zeros_like(array, np.uint8)
    for label in labels:
        lobe = lobe_of(label)
        if lobe is not None:
            for value in label.values:
                found[array == value] = 1 + LOBES.index(lobe)
    return found


def lobe_name(number: int) -> str:
    """The row of a lobe, such as ``right_upper_lobe``, from its number in a lobe map."""
    side, place = LOBES[number - 1]
    return f"{side}_{place}_lobe"


def severity(involved_percent: float) -> int:
    """The CT severity score of a lobe, 0 to 5, from the share of it that is involved (Pan et al. 2020)."""
    if involved_percent <= 0:
        return 0
    first, *others = SEVERITY_PERCENT
    return 1 if involved_percent < first else 2 + sum(involved_percent > end for end in others)


def lobe_rows(lungs: LungScan) -> tuple[StructureMeasures, ...]:
    """A row for each lobe with voxels: all measures of a lung's part, and with lesions its severity score."""
    if not lungs.lobes.size:
        return ()
    rows = []
    scores = involvement(lungs) if lungs.lesions.size else {}
    for number in present(lungs.lobes):
        inside = np.asarray(lungs.lobes == number)
        region = value_distribution(lungs.hu, inside, lungs.grid.voxel_ml).rescaled(lungs.hu_factor)
        values = measures.measures_of(region)
        if scores:
            values |= {"involved_percent": scores[number], "ct_severity": float(severity(scores[number]))}
        rows.append(StructureMeasures(lobe_name(number), WHOLE, values))
    return tuple(rows)


def with_severity(rows: Sequence[StructureMeasures]) -> tuple[StructureMeasures, ...]:
    """The rows of lungs and lobes, with the sum of the lobes' scores in that of both lungs.

    The sum needs all five lobes.
    """
    scores = [row.values["ct_severity"] for row in rows if "ct_severity" in row.values]
    known = [score for score in scores if score is not None]
    if len(known) < len(LOBES):
        return tuple(rows)
    whole = (BOTH, WHOLE)
    return tuple(
        StructureMeasures(row.structure, row.region, {**row.values, "ct_severity": sum(known)})
        if (row.structure, row.region) == whole
        else row
        for row in rows
    )


def present(lobes: Array) -> list[int]:
    """The numbers of the lobes that have voxels."""
    counts = np.bincount(lobes.ravel(order="K"), minlength=1 + len(LOBES))
    return [number for number in range(1, 1 + len(LOBES)) if counts[number]]


def involvement(lungs: LungScan) -> Mapping[int, float]:
    """The share of each lobe that is lesion, in percent.

    A lesion's voxel outside of all lobes, as consolidation that a mask spares, belongs to the nearest lobe
    and enlarges it.
    """
    numbers = present(lungs.lobes)
    inside = np.bincount(lungs.lobes[lungs.lesions], minlength=1 + len(LOBES))
    added = np.zeros_like(inside)
    if inside[0] and numbers:
        added = np.bincount(_nearest(lungs), minlength=1 + len(LOBES))
    found = {}
    for number in numbers:
        whole = np.count_nonzero(lungs.lobes == number) + added[number]
        found[number] = 100 * float(inside[number] + added[number]) / whole
    return found


def _nearest(lungs: LungScan) -> Array:
    """The lobe nearest to each lesion voxel outside of all lobes, by mm between centres."""
    from scipy import ndimage
    from scipy.spatial import cKDTree

    full = lungs.lobes > 0
    surface = np.argwhere(full & ~ndimage.binary_erosion(full))
    spacing = np.asarray(lungs.grid.spacing_mm)
    places = np.argwhere(lungs.lesions & ~full) * spacing
    _, nearest = cKDTree(surface * spacing).query(places)
    return np.asarray(lungs.lobes[tuple(surface[nearest].T)])
