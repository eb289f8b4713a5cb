"""What looks wrong about the lobes of a lung."""

from __future__ import annotations

import re
from functools import partial
from math import prod

import numpy as np

from medseg.images.connected_components import components
from medseg.images.label import Label
from medseg.images.run_length import Runs
from medseg.images.volume import Mask, members
from medseg.system.notices import Notice

SHARES = {
    ("left", "upper"): (0.25, 0.75),
    ("left", "lower"): (0.25, 0.75),
    ("right", "upper"): (0.15, 0.65),
    ("right", "middle"): (0.03, 0.35),
    ("right", "lower"): (0.2, 0.7),
}
"""The least and the largest share of its lung that a lobe should have. Our choice, wide about typical shares
of a lung at full inspiration: left 1/2 and 1/2, right 1/3, 1/6 and 1/2. Not measured on a data set."""

PART_ML, PART_SHARE = 5.0, 0.02
"""A part apart from its lobe is named if it is larger than either."""

_WORD = re.compile(r"[a-z]+")
_SIDES = {"left": "left", "l": "left", "right": "right", "r": "right"}
_PLACES = ("upper", "middle", "lower")


def lobe_of(label: Label) -> tuple[str, str] | None:
    """Side and place of a lobe by its name, such as ``lung_upper_lobe_left``; None for anything else."""
    words = _WORD.findall(label.name.lower())
    places = [word for word in words if word in _PLACES]
    sides = {_SIDES[word] for word in words if word in _SIDES}
    others = set(words) - {"lung", "lobe", *_PLACES, *_SIDES}
    if len(places) != 1 or len(sides) != 1 or others or not {"lung", "lobe"} & set(words):
        return None
    lobe = (sides.pop(), places[0])
    return lobe if lobe in SHARES else None


def lobe_findings(mask: Mask) -> tuple[Notice, ...]:
    """Notices about lobes that are missing, in several parts, or of an unusual share of their lung.

    Only lungs of which every lobe has a label are looked at, so that a choice of labels is not a finding.

    Args:
        mask: A mask; labels are recognised as lobes by name, see :func:`lobe_of`.
    """
    lobes = {lobe: label for label in mask.labels if (lobe := lobe_of(label)) is not None}
    found: list[Notice] = []
    for side in ("right", "left"):
        wanted = [lobe for lobe in SHARES if lobe[0] == side]
        if all(lobe in lobes for lobe in wanted):
            found += _of_lung(mask, side, {place: lobes[side, place] for _, place in wanted})
    return tuple(found)


def _of_lung(mask: Mask, side: str, lobes: dict[str, Label]) -> list[Notice]:
    runs = {place: Runs.of(mask.array, partial(members, label=label)) for place, label in lobes.items()}
    voxel_ml = prod(mask.grid.spacing_mm) / 1000
    sizes_ml = {place: each.size * voxel_ml for place, each in runs.items()}
    whole_ml = sum(sizes_ml.values())
    found = []
    if whole_ml and not any(_is_cut(each) for each in runs.values()):
        found += [_size_finding(side, place, ml / whole_ml) for place, ml in sizes_ml.items()]
    found += [_parts_finding(side, place, each, voxel_ml) for place, each in runs.items()]
    return [each for each in found if each is not None]


def _is_cut(runs: Runs) -> bool:
    """Whether a lobe ends at the border of the scan, so that its size says nothing."""
    box = runs.box()
    return box is not None and any(
        part.start == 0 or part.stop == n for part, n in zip(box, runs.shape, strict=True)
    )


def _size_finding(side: str, place: str, share: float) -> Notice | None:
    name, (low, high) = f"the {side} {place} lobe", SHARES[side, place]
    if not share:
        remedy = "check the mask, unless the lobe was removed"
        return Notice("lobe-missing", f"{name} was not found", remedy=remedy)
    if low <= share <= high:
        return None
    text = f"{name} has {100 * share:.0f} % of its lung, not {100 * low:.0f} to {100 * high:.0f} %"
    return Notice("lobe-share", text, remedy="check the fissures, unless a lobe has shrunk or was removed")


def _parts_finding(side: str, place: str, runs: Runs, voxel_ml: float) -> Notice | None:
    numbers, count = components(runs, corners=True)
    parts_ml = np.bincount(numbers, weights=runs.lengths, minlength=count) * voxel_ml
    parts_ml = np.sort(parts_ml)[::-1]
    apart_ml = parts_ml[1:][parts_ml[1:] > max(PART_ML, PART_SHARE * runs.size * voxel_ml)]
    if not len(apart_ml):
        return None
    text = f"the {side} {place} lobe is in {len(apart_ml) + 1} parts: {apart_ml.sum():.0f} ml lie apart"
    return Notice("lobe-parts", text, remedy="check the mask")
