"""Growth of lesions between the masks of two dates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from medseg.errors import UsageError
from medseg.images.connected_components import components
from medseg.images.run_length import Array, Runs
from medseg.images.volume import Mask, members
from medseg.io.foreign_images import MaskLike, as_mask
from medseg.measurement.lesions import GROWING_DAYS, GROWTH_PERCENT, REPEATABILITY_PERCENT, growth
from medseg.measurement.measurement_table import Measurement, StructureMeasures
from medseg.visualization.labelled_masks import label_every_value, labels_beside

REGION = "growth"
"""The region of rows about growth."""

DEFINITIONS = {
    "earlier_mm3": "volume at the first date: voxels times voxel volume",
    "later_mm3": "volume at the second date",
    "earlier_lesions": "26-connected lesions at the first date",
    "later_lesions": "26-connected lesions at the second date",
    "change_percent": "change of the volume as a share of the first",
    "doubling_days": "volume doubling time VDT = ln 2 x days / ln(V2 / V1), negative for a shrinking lesion",
    "beyond_repeatability": f"1 if the change is larger than {REPEATABILITY_PERCENT:g} %, the repeatability "
    "of volumes, else 0",
    "grows": f"1 if it is that, at least {GROWTH_PERCENT:g} %, and doubles in less than {GROWING_DAYS:g} "
    "days, else 0",
}
"""Columns of growth; their source is ``nelson2009``."""


def measure_growth(earlier: MaskLike, later: MaskLike, days: float) -> Measurement:
    """The change of lesions between two dates: of all together, and of each label that both masks have.

    A lesion is followed by its label: give it the same value in both masks. Masks with one value have a row
    for all lesions only. The masks need no common grid, since volumes alone are compared. A new lesion, or
    one that has gone, has a volume of 0 and no doubling time.

    Args:
        earlier: Lesions at the first date, any value but 0.
        later: Lesions at the second date.
        days: Days from the first to the second.

    Raises:
        InputRefused: a mask cannot be read.
        UsageError: the number of days is not positive (``measure``).

    Example:
        >>> found = medseg.measure_growth("lungs.nii.gz", "lungs.nii.gz", 90)
        >>> found.of("lesions", "growth")["change_percent"]
        0.0
    """
    if not 0 < days < float("inf"):
        raise UsageError(
            f"{days} days between two dates",
            where="days",
            remedy="give the number of days from the earlier to the later scan, above 0",
            reason="measure",
        )
    pair = [_labelled(mask) for mask in (earlier, later)]
    found = [_volumes(mask) for mask in pair]
    names = list(dict.fromkeys(name for each in found for name in each))
    if len(names) == 2:  # all, and the one label
        names = names[:1]
    rows = []
    for name in names:
        (first, first_count), (second, second_count) = (each.get(name, (0.0, 0)) for each in found)
        values: dict[str, float | None] = dict.fromkeys(DEFINITIONS)
        values |= {"earlier_mm3": first, "later_mm3": second}
        values |= {"earlier_lesions": float(first_count), "later_lesions": float(second_count)}
        if first and second:
            change = growth(first, second, days)
            values |= {
                "change_percent": change.change_percent,
                "doubling_days": change.doubling_days,
                "beyond_repeatability": float(change.beyond_repeatability),
                "grows": float(change.grows),
            }
        rows.append(StructureMeasures(name, REGION, values))
    spacing = {
        "spacing_mm": list(pair[1].grid.spacing_mm),
        "earlier_spacing_mm": list(pair[0].grid.spacing_mm),
    }
    return Measurement(tuple(rows), {}, {"growth_days": days, **spacing}, DEFINITIONS)


def _labelled(mask: MaskLike) -> Mask:
    """The mask with its labels, those beside its file, or one for each value."""
    plain = as_mask(mask)
    if plain.labels:
        return plain
    labels = labels_beside(mask) if isinstance(mask, str | Path) else ()
    return replace(plain, labels=labels) if labels else label_every_value(plain)


def _volumes(mask: Mask) -> dict[str, tuple[float, int]]:
    """Volume in mm³ and number of lesions: ``lesions`` for all, then by label; labels without voxels not."""
    found = {"lesions": _size(np.asarray(mask.array > 0), mask)}
    for label in mask.labels:
        size = _size(members(mask.array, label), mask)
        if size[1]:
            found[label.name] = size
    return found


def _size(inside: Array, mask: Mask) -> tuple[float, int]:
    voxels = int(np.count_nonzero(inside))
    return voxels * mask.grid.voxel_ml * 1000, components(Runs.of(inside), corners=True)[1]
