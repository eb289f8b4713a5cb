"""Whether a scan is fit for densitometry: facts, and notices where they speak against the numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np

from medseg.images.volume import Volume
from medseg.inference.lungs import LEFT, RIGHT
from medseg.io.dicom.acquisition import acquisition_of
from medseg.measurement.airways import find_trachea
from medseg.measurement.aorta import find_aorta_hu
from medseg.measurement.kernels import is_sharp
from medseg.measurement.lung_measures import LungScan
from medseg.measurement.motion import outline_jump_mm
from medseg.system.notices import Notice

THICK_MM = 1.5
"""Thicker slices average emphysema away; quantitative protocols use 0.5 to 1.25 mm (COPDGene, QIBA)."""

CONTRAST_HU = 80.0
"""Blood without contrast medium has 30 to 60 HU; the limit is ours."""

CUT_CM2 = 1.0
"""Lung on a face of the scan from this area on is cut; the limit is ours."""

AIR_HU = (-1015.0, -985.0)
"""Tracheal air by definition has -1000 HU; the tolerance is ours."""

MOST_CORRECTED_HU = (-1100.0, -900.0)
"""Air outside of this is no calibration error but something else, and is not corrected by; ours."""

JUMP_MM = 2.5
"""Outlines of 11 of 13 CTs jump by at most 2.2 mm, and by 3.1 mm or more if the upper half of the lungs is
shifted by 8 mm; the limit is ours."""

EXPIRATION_HU = -750.0
"""Healthy lungs have about -850 HU in full inspiration and -700 in expiration; the limit is ours."""


@dataclass(frozen=True)
class ScanFitness:
    """Facts that decide what the measures of a lung are worth; None where they are unknown.

    Attributes:
        slice_thickness_mm: From the DICOM header, else the distance of the slices.
        kernel: Reconstruction kernel, from the DICOM header.
        contrast_agent: Whether the header names a contrast agent.
        trachea_hu: Median of the air in the trachea.
        trachea_sd_hu: Standard deviation there: the noise of the scan.
        airway_in_mask: Whether the trachea is part of the mask.
        heart_hu: Median of the soft tissue between the lungs in the lower half, mostly heart and blood.
        cut_cm2: Area of lung on the faces of the scan.
        mean_hu: Mean of both lungs.
        hu_factor: What every HU was multiplied by: 1 without air correction.
        aorta_hu: Median of blood in the descending aorta.
        outline_jump_mm: Largest sudden shift of the lungs' outline between two slices: breathing.
    """

    slice_thickness_mm: float | None = None
    kernel: str | None = None
    contrast_agent: bool | None = None
    trachea_hu: float | None = None
    trachea_sd_hu: float | None = None
    airway_in_mask: bool | None = None
    heart_hu: float | None = None
    cut_cm2: float = 0.0
    mean_hu: float | None = None
    hu_factor: float = 1.0
    aorta_hu: float | None = None
    outline_jump_mm: float | None = None

    def to_json(self) -> dict[str, object]:
        """The facts by name."""
        return asdict(self)


def fitness_of(scan: Volume, lungs: LungScan) -> ScanFitness:
    """The facts of a scan.

    Args:
        scan: The whole CT.
        lungs: Both lungs cut out of it, without correction.
    """
    header = acquisition_of(scan.source)
    along = scan.grid.world_axes.index(2)
    inside = lungs.sides > 0
    trachea = find_trachea(lungs.sides, lungs.hu, lungs.grid)
    return ScanFitness(
        header.slice_thickness_mm or scan.grid.spacing_mm[along],
        header.kernel,
        header.contrast_agent,
        None if trachea is None else trachea.air_hu,
        None if trachea is None else trachea.sd_hu,
        None if trachea is None else trachea.in_mask,
        _heart_hu(lungs),
        _cut_cm2(scan, lungs),
        float(lungs.hu.mean(where=inside, dtype=np.float64)) if inside.any() else None,
        aorta_hu=find_aorta_hu(lungs.sides, lungs.hu, lungs.grid),
        outline_jump_mm=outline_jump_mm(lungs.sides, lungs.grid),
    )


def notices_of(fitness: ScanFitness) -> tuple[Notice, ...]:
    """What speaks against comparing the measures with those of other scans or with published limits."""
    return tuple(_notices(fitness))


def _notices(facts: ScanFitness) -> Iterator[Notice]:
    thick, kernel = facts.slice_thickness_mm, facts.kernel
    if thick is not None and thick > THICK_MM:
        yield Notice(
            "lung-thick-slices",
            f"slices of {thick:.3g} mm: shares below thresholds and percentiles are not those of thin ones",
            remedy=f"measure a series with slices of at most {THICK_MM} mm, or compare scans of one protocol",
        )
    if kernel is not None and is_sharp(kernel):
        yield Notice(
            "lung-sharp-kernel",
            f"the kernel {kernel} is sharp: noise adds to shares below a threshold",
            remedy="measure a series with a smooth kernel",
        )
    if facts.contrast_agent or any(
        hu is not None and hu > CONTRAST_HU for hu in (facts.heart_hu, facts.aorta_hu)
    ):
        heart, aorta = (
            "unknown" if hu is None else f"{hu:.0f} HU" for hu in (facts.heart_hu, facts.aorta_hu)
        )
        yield Notice(
            "lung-contrast",
            f"contrast medium (between the lungs {heart}, aorta {aorta}): lungs look denser",
            remedy="compare with scans of the same phase only",
        )
    if facts.cut_cm2 >= CUT_CM2:
        yield Notice(
            "lung-cut",
            f"{facts.cut_cm2:.1f} cm² of lung lie on a face of the scan: the lungs are not complete",
            remedy="use no volume, mass or regions of this scan",
        )
    if facts.outline_jump_mm is not None and facts.outline_jump_mm > JUMP_MM:
        yield Notice(
            "lung-motion",
            f"the lungs' outline jumps by {facts.outline_jump_mm:.1f} mm between two slices: breathing, or a "
            "fault of the mask",
            remedy="look at the coronal plane",
        )
    if facts.mean_hu is not None and facts.mean_hu > EXPIRATION_HU:
        yield Notice(
            "lung-expiration",
            f"the lungs have {facts.mean_hu:.0f} HU on average: an expiration, or dense lungs",
            remedy="check that the scan was taken in inspiration",
        )
    air = facts.trachea_hu
    if air is not None and not AIR_HU[0] <= air <= AIR_HU[1] and facts.hu_factor == 1:
        yield Notice(
            "trachea-air",
            f"the air in the trachea has {air:.0f} HU instead of -1000",
            remedy="correct it with --correct-air, or compare scans of one scanner",
        )
    if facts.airway_in_mask:
        yield Notice(
            "airway-in-mask",
            "the trachea is part of the mask, and counts as emphysema",
            remedy="remove the airways from the mask",
        )


def _cut_cm2(scan: Volume, lungs: LungScan) -> float:
    """The area of lung on the faces of the scan."""
    whole = scan.grid.oriented("RAS")
    first = np.rint(whole.index(lungs.grid.world((0, 0, 0)))).astype(int)
    area_mm2 = 0.0
    for axis in range(3):
        face_mm2 = float(np.prod(whole.spacing_mm)) / whole.spacing_mm[axis]
        planes = np.moveaxis(lungs.sides, axis, 0)
        if first[axis] == 0:
            area_mm2 += np.count_nonzero(planes[0]) * face_mm2
        if first[axis] + len(planes) == whole.shape[axis]:
            area_mm2 += np.count_nonzero(planes[-1]) * face_mm2
    return float(area_mm2) / 100


def _heart_hu(lungs: LungScan) -> float | None:
    """The median of soft tissue between the lungs, in their lower half and in front of the spine."""
    _, depth, height = lungs.sides.shape
    part = (
        slice(None, None, 2),
        slice(int(0.4 * depth), None, 2),
        slice(int(0.15 * height), int(0.6 * height) + 1, 2),
    )
    sides, hu = lungs.sides[part], lungs.hu[part]
    # Between: some left lung lies farther left in the same row, and some right lung farther right.
    left = np.logical_or.accumulate(sides == LEFT, axis=0)
    right = np.logical_or.accumulate((sides == RIGHT)[::-1], axis=0)[::-1]
    found = hu[left & right & (sides == 0)]
    soft = found[(found > 0) & (found < 600)]  # without fat, and without most bone and devices
    return float(np.median(soft)) if soft.size else None
