"""Volume, intensities and shape of any label."""

from __future__ import annotations

from medseg.images.run_length import Binary
from medseg.images.volume import Mask, Volume, members
from medseg.measurement.distribution import Distribution
from medseg.measurement.measurement_table import WHOLE, StructureMeasures
from medseg.measurement.regions import bounding_box
from medseg.measurement.shape import DEFINITIONS as SHAPE
from medseg.measurement.shape import shape_of

DEFINITIONS = SHAPE | {
    "mean": "mean intensity, in the unit of the scan (HU for CT)",
    "sd": "standard deviation of the intensity (divisor n)",
    "minimum": "smallest intensity",
    "p5": "5th percentile of the intensity, linear interpolation",
    "median": "median intensity",
    "p95": "95th percentile of the intensity, linear interpolation",
    "maximum": "largest intensity",
}
"""Every column of a structure."""


def measure_structures(scan: Volume, mask: Mask, names: set[str]) -> tuple[StructureMeasures, ...]:
    """The measures of `DEFINITIONS` for the labels with these names, in the order of the mask.

    Args:
        scan: The scan, oriented ``RAS``.
        mask: On the same grid.
        names: Names of labels; one without voxels has no intensities.
    """
    found = []
    for label in mask.labels:
        if label.name in names:
            inside = members(mask.array, label)
            found.append(StructureMeasures(label.name, WHOLE, _measures(scan, inside)))
    return tuple(found)


def _measures(scan: Volume, inside: Binary) -> dict[str, float | None]:
    box = bounding_box(inside)
    if box is None:
        return dict.fromkeys(DEFINITIONS) | shape_of(inside[:0], scan.grid.spacing_mm)
    part = inside[box]
    region = Distribution.of(scan.array[box][part], scan.grid.voxel_ml)
    return {
        **shape_of(part, scan.grid.spacing_mm),
        "mean": region.mean,
        "sd": region.sd,
        "minimum": region.percentile(0),
        "p5": region.percentile(5),
        "median": region.percentile(50),
        "p95": region.percentile(95),
        "maximum": region.percentile(100),
    }
