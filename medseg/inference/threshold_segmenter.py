"""Lung segmentation by thresholds, without a trained model.

A baseline for lung models, and a fallback where no network can be used. It follows Hu, Hoffman and Reinhardt
2001 (doi:10.1109/42.929615): threshold, remove the airway slice by slice from the trachea down, separate
right and left, close each. It misses lung that is as dense as the chest wall (consolidation, effusion, tumour
at the pleura).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from medseg.errors import InputRefused
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.run_length import Binary, Runs
from medseg.images.volume import Mask, Source, Volume
from medseg.inference.lung_checks import qc_findings
from medseg.inference.lungs import find_sides
from medseg.inference.postprocessing import postprocess
from medseg.inference.prediction import Prediction, PreparedScan
from medseg.inference.scan_checks import check_finite
from medseg.system.notices import collect_notices, send

Array: TypeAlias = npt.NDArray[np.integer | np.floating]

AIR_HU = -400.0
"""Darker voxels are air or lung: halfway between lung (-850 HU) and soft tissue (50 HU)."""

LUMEN_HU = -900.0
"""Darker voxels may be airway; its wall and healthy lung are denser."""

AROUND_HU = -930.0
"""A dark part with a lower mean is not lung but air around the patient or in the bowel."""

AIRWAY_MM2 = (50.0, 700.0)
"""Cross-section of the trachea and the main bronchi: diameters of 8 to 30 mm."""

TRACHEA_MM = 40.0
"""Least length of the trachea, which is about 110 mm long."""

NECK_MM = 3.0
"""Half width of the bridges between lung and bowel gas across the diaphragm in thick slices."""

SMALLEST_ML = 20.0
"""Smaller parts are not lung."""

CLOSING_MM = 8.0
"""Radius of the closing, which includes vessels and nodules at the surface up to twice as wide."""

SIDES = "midline, within the body"
"""How the sides are found; a change of the method changes the digest."""
_NOT_CT = {"MR": "MR", "picture": "a picture"}


class ThresholdSegmenter:
    """Segments the lungs of a CT scan with thresholds; used like a `Segmenter`.

    >>> mask = ThresholdSegmenter()(medseg.read("chest.nii.gz"))  # doctest: +SKIP

    Attributes:
        name: ``threshold``.
        labels: ``right_lung`` (1) and ``left_lung`` (2).
        channels: One, CT.
        ignore_value: None.
    """

    name = "threshold"
    labels = (
        Label(name="right_lung", values=(1,), side="right"),
        Label(name="left_lung", values=(2,), side="left"),
    )
    channels = ("CT",)
    ignore_value = None

    def __init__(self, *, any_modality: bool = False) -> None:
        self.any_modality = any_modality

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of the method's numbers, in place of a model file's digest."""
        airway = (LUMEN_HU, AROUND_HU, *AIRWAY_MM2, TRACHEA_MM)
        numbers = (AIR_HU, *airway, NECK_MM, SMALLEST_ML, CLOSING_MM, SIDES)
        return hashlib.sha256(repr(numbers).encode()).hexdigest()

    @property
    def engine(self) -> str:
        """Name and version of the library that computes the mask."""
        return f"scipy {version('scipy')}"

    def __call__(self, scan: Volume | Sequence[Volume]) -> Mask:
        """The mask of one CT scan in HU, on exactly its grid; empty if no lung is found.

        Raises:
            InputRefused: more than one channel (``channel-count``), or the scan is not CT (``modality``), or
                some voxels are not finite (``not-finite``).
        """
        return self.prepare(scan).predict().mask

    def prepare(self, scan: Volume | Sequence[Volume], roi: Sequence[str] = ()) -> PreparedScan:
        """The scan after its checks, ready to segment; errors as in :meth:`__call__`."""
        volumes = (scan,) if isinstance(scan, Volume) else tuple(scan)
        if len(volumes) != 1:
            raise InputRefused(
                f"{len(volumes)} channel(s) given, thresholds need one",
                remedy="give the CT scan alone",
                reason="channel-count",
            )
        (volume,) = volumes
        if volume.source.modality in _NOT_CT and not self.any_modality:
            raise InputRefused(
                f"the scan is {_NOT_CT[volume.source.modality]}, thresholds are for CT",
                where=volume.source.path,
                remedy="choose a model for this modality, or skip this check with --any-modality",
                reason="modality",
            )
        check_finite(volumes)
        return _CheckedScan(volume, self.labels)


@dataclass(frozen=True)
class _CheckedScan:
    volume: Volume
    labels: tuple[Label, ...]

    def predict(self, *, probabilities: bool = False) -> Prediction:
        """See :meth:`medseg.inference.prediction.PreparedScan.predict`; thresholds have no probabilities."""
        volume = self.volume
        upright = volume.oriented("RAS")
        with collect_notices(pass_on=True) as notices:
            right, left = threshold_lungs(np.asarray(upright.array), upright.grid, volume.source)
            painted = np.asfortranarray(right + 2 * left.astype(np.uint8))
            mask = Mask(painted, upright.grid, self.labels, volume.source).oriented(volume.grid.axcodes)
            send(each.at(volume.source.path) for each in qc_findings(mask, volume))
        return Prediction(mask, notices=tuple(notices))


def threshold_lungs(hu: Array, grid: Grid, source: Source | None = None) -> tuple[Binary, Binary]:
    """The right and the left lung of a CT, bool (X, Y, Z).

    Args:
        hu: The CT in HU, (X, Y, Z), axes in RAS order and direction.
        grid: The CT's grid.
        source: Where the scan comes from, for notices.
    """
    inside = _inside(hu)
    airway = _airway(hu, inside, grid)
    lungs = _without_gas(hu, inside & ~airway, grid)
    *halves, notices = find_sides(Runs.of(lungs), Volume(hu, grid, source or Source()), least_ml=SMALLEST_ML)
    # Thresholds always find air around the patient: leaving it out needs no notice.
    send(each for each in notices if each.reason == "side-unknown")
    sides = [_closed(side.binary(), grid) for side in halves]
    right, left = (
        postprocess(
            Runs.of(side & ~airway), grid, keep_components=1, fill_holes=True, min_volume_ml=SMALLEST_ML
        ).binary()
        for side in sides
    )
    return right & ~left, left


def _inside(hu: Array) -> Binary:
    """Dark voxels inside the body: in their axial slice they are not connected to the edge of the scan.

    In 3D they can be, through an open mouth. A lung that the field of view cuts also reaches the edge, but is
    not as dark as air.
    """
    from scipy import ndimage

    inside = hu < AIR_HU
    for z in range(hu.shape[2]):
        parts, count = ndimage.label(inside[:, :, z])
        if not count:
            continue
        size = np.bincount(parts.ravel(), minlength=count + 1)
        darkness = np.bincount(parts.ravel(), weights=hu[:, :, z].ravel(), minlength=count + 1)
        edges = (parts[0], parts[-1], parts[:, 0], parts[:, -1])
        around = np.zeros(count + 1, dtype=np.bool_)
        around[np.unique(np.concatenate(edges))] = True
        around &= darkness / np.maximum(size, 1) < AROUND_HU
        inside[:, :, z] &= ~around[parts]
    return np.asarray(inside)


def _without_gas(hu: Array, inside: Binary, grid: Grid) -> Binary:
    """The parts that are large and dense enough for lungs, without the bowel gas below them.

    Only the diaphragm separates the two, and in thick slices they touch: the mask is eroded into parts, and
    each voxel belongs to the nearest part.
    """
    from scipy import ndimage

    boxes = ndimage.find_objects(inside.astype(np.uint8))
    if not boxes:
        return inside
    box = boxes[0]
    depth_mm = ndimage.distance_transform_edt(np.pad(inside[box], 1), sampling=grid.spacing_mm)
    parts, count = ndimage.label(depth_mm[1:-1, 1:-1, 1:-1] > NECK_MM, structure=np.ones((3, 3, 3)))
    if not count:
        return np.zeros_like(inside)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    means = np.bincount(parts.ravel(), weights=hu[box].ravel(), minlength=count + 1) / np.maximum(sizes, 1)
    lung = (sizes >= 0.02 * sizes.max()) & (means > AROUND_HU)
    indices = ndimage.distance_transform_edt(
        parts == 0, sampling=grid.spacing_mm, return_distances=False, return_indices=True
    )
    kept = np.zeros_like(inside)
    kept[box] = inside[box] & lung[parts[tuple(indices)]]
    return postprocess(Runs.of(kept), grid, min_volume_ml=SMALLEST_ML).binary()


def _airway(hu: Array, inside: Binary, grid: Grid) -> Binary:
    """Trachea and main bronchi with their walls, followed from the top down.

    The trachea starts at a dark, round part in the middle of the body that continues for `TRACHEA_MM`.
    """
    from scipy import ndimage

    lumen = inside & (hu < LUMEN_HU)
    wall = [max(1, round(1.5 / mm)) for mm in grid.spacing_mm[:2]]
    for z in range(hu.shape[2] - 1, -1, -1):
        start = _trachea(lumen[:, :, z], hu[:, :, z] > AIR_HU, grid)
        if start is None:
            continue
        airway = _followed(lumen, start, z, grid)
        if np.count_nonzero(airway.any(axis=(0, 1))) * grid.spacing_mm[2] >= TRACHEA_MM:
            walls = np.ones((2 * wall[0] + 1, 2 * wall[1] + 1, 1))
            return np.asarray(ndimage.binary_dilation(airway, walls))
    return np.zeros_like(lumen)


def _trachea(lumen: Binary, body: Binary, grid: Grid) -> Binary | None:
    """The part of an axial slice that may be the trachea: compact and central; None if there is none."""
    from scipy import ndimage

    columns = np.flatnonzero(body.any(axis=1))
    parts, count = ndimage.label(lumen)
    if not count or not len(columns):
        return None
    middle = (columns[0] + columns[-1]) / 2
    areas_mm2 = np.bincount(parts.ravel()) * grid.spacing_mm[0] * grid.spacing_mm[1]
    for number, box in enumerate(ndimage.find_objects(parts), start=1):
        wide, deep = ((s.stop - s.start) * mm for s, mm in zip(box, grid.spacing_mm[:2], strict=True))
        away_mm = abs((box[0].start + box[0].stop - 1) / 2 - middle) * grid.spacing_mm[0]
        compact = areas_mm2[number] > 0.55 * wide * deep and 0.4 < wide / deep < 2.5
        if AIRWAY_MM2[0] < areas_mm2[number] < AIRWAY_MM2[1] and compact and away_mm < 40:
            return np.asarray(parts == number)
    return None


def _followed(lumen: Binary, start: Binary, z: int, grid: Grid) -> Binary:
    """The airway from ``start`` down: in each slice, the small parts that touch those above."""
    from scipy import ndimage

    airway = np.zeros_like(lumen)
    airway[:, :, z] = start
    for below in range(z - 1, -1, -1):
        parts, count = ndimage.label(lumen[:, :, below])
        areas_mm2 = np.bincount(parts.ravel(), minlength=count + 1) * grid.spacing_mm[0] * grid.spacing_mm[1]
        touched = np.bincount(parts[airway[:, :, below + 1]], minlength=count + 1) > 0
        continuing = touched & (areas_mm2 < AIRWAY_MM2[1])
        continuing[0] = False
        airway[:, :, below] = continuing[parts]
        if not continuing.any():
            break
    return airway


def _closed(side: Binary, grid: Grid) -> Binary:
    """A lung closed with a ball of `CLOSING_MM`; beyond the faces of the scan is background."""
    from scipy import ndimage

    boxes = ndimage.find_objects(side.astype(np.uint8))
    if not boxes:
        return side
    margin = [int(np.ceil(CLOSING_MM / mm)) + 1 for mm in grid.spacing_mm]
    inner = np.pad(side[boxes[0]], [(m, m) for m in margin])
    wide = ndimage.distance_transform_edt(~inner, sampling=grid.spacing_mm) <= CLOSING_MM
    closed = ndimage.distance_transform_edt(wide, sampling=grid.spacing_mm) > CLOSING_MM
    core = tuple(slice(m, -m) for m in margin)
    whole = side.copy()
    whole[boxes[0]] |= closed[core]
    return whole
