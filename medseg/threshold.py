"""The lungs without a trained model: what is as dark as lung, inside the body, and not the airway.

The line of reference for every model of the lungs, and of use where no network may be. It follows Hu,
Hoffman and Reinhardt 2001 (doi:10.1109/42.929615): threshold, airway removed slice by slice from
the trachea down, right and left divided, each closed. It fails where a lung is as dense as the
wall (consolidation, effusion, tumour at the pleura): there is nothing dark to find.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from medseg.errors import InputRefused
from medseg.grid import Grid
from medseg.label import Label
from medseg.lungs import divide
from medseg.postprocess import postprocess
from medseg.volume import Mask, Volume

Binary: TypeAlias = npt.NDArray[np.bool_]
Array: TypeAlias = npt.NDArray[np.integer | np.floating]

AIR_HU = -400.0
"""Below is air or lung: between lung (-850) and soft tissue (50); usual in the field."""

LUMEN_HU = -900.0
"""Below may be airway: the wall is not, and healthy lung is denser."""

AROUND_HU = -930.0
"""Mean of a dark part that is no lung: the air around the patient or in the bowel."""

AIRWAY_MM2 = (30.0, 900.0)
"""Cross-section of a trachea or main bronchus: diameter of 6 to 34 mm."""

CLOSING_MM = 8.0
"""Vessels and nodules of up to twice this width at the surface belong to the lung."""


class Threshold:
    """Segments the lungs of a CT scan with thresholds; used as a `Segmenter` is.

    >>> mask = Threshold()(medseg.read("chest.nii.gz"))  # doctest: +SKIP

    Attributes:
        name: ``threshold``.
        labels: ``right_lung`` (1) and ``left_lung`` (2).
        channels: One, CT.
    """

    name = "threshold"
    labels = (
        Label(name="right_lung", values=(1,), side="right"),
        Label(name="left_lung", values=(2,), side="left"),
    )
    channels = ("CT",)

    def __init__(self, *, any_modality: bool = False) -> None:
        self.any_modality = any_modality

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of the numbers above; it stands where a model file's would."""
        numbers = (AIR_HU, LUMEN_HU, AROUND_HU, *AIRWAY_MM2, CLOSING_MM)
        return hashlib.sha256(repr(numbers).encode()).hexdigest()

    def __call__(self, scan: Volume | Sequence[Volume]) -> Mask:
        """The mask of one CT scan in HU, on exactly its grid; empty where nothing like a lung is found.

        Raises:
            InputRefused: more than one channel (``channels``), or the scan says it is no CT (``modality``).
        """
        volumes = (scan,) if isinstance(scan, Volume) else tuple(scan)
        if len(volumes) != 1:
            raise InputRefused(
                f"{len(volumes)} channel(s) given, thresholds need one",
                remedy="give the CT scan alone",
                reason="channels",
            )
        (volume,) = volumes
        if volume.source.modality == "MR" and not self.any_modality:
            raise InputRefused(
                "the scan is MR, thresholds are for CT",
                where=volume.source.path,
                remedy="choose a model for this kind of scan, or say --any-modality",
                reason="modality",
            )
        upright = volume.oriented("RAS")
        right, left = _lungs(np.asarray(upright.array), upright.grid)
        painted = np.asfortranarray(right + 2 * left.astype(np.uint8))
        return Mask(painted, upright.grid, self.labels, volume.source).oriented(volume.grid.axcodes)


def _lungs(hu: Array, grid: Grid) -> tuple[Binary, Binary]:
    """Right and left lung, bool (X, Y, Z) in RAS order."""
    inside = _inside(hu, grid)
    airway = _airway(hu, inside, grid)
    lungs = postprocess(inside & ~airway, grid, min_volume_ml=20.0)
    sides = [_closed(side, grid) for side in divide(lungs, grid)]
    right, left = (
        postprocess(side & ~airway, grid, keep_components=1, fill_holes=True, min_volume_ml=20.0)
        for side in sides
    )
    return right & ~left, left


def _inside(hu: Array, grid: Grid) -> Binary:
    """What is dark within the body: parts that reach a side face of the scan are around it."""
    from scipy import ndimage

    dark = hu < AIR_HU
    parts, count = ndimage.label(dark)
    if not count:
        return np.asarray(dark)
    reaching = [np.unique(np.take(parts, end, axis=axis)) for axis in (0, 1) for end in (0, -1)]
    size = np.bincount(parts.ravel(), minlength=count + 1)
    darkness = np.bincount(parts.ravel(), weights=hu.ravel().astype(np.float32), minlength=count + 1)
    kept = (size * grid.voxel_ml >= 1.0) & (darkness / np.maximum(size, 1) > AROUND_HU)
    for part in np.unique(np.concatenate(reaching)):
        # A lung that the field of view cuts reaches a face too, but is not as dark as air.
        kept[part] &= darkness[part] / size[part] > AROUND_HU + 30
    kept[0] = False
    return np.asarray(kept[parts])


def _airway(hu: Array, inside: Binary, grid: Grid) -> Binary:
    """Trachea and main bronchi, followed from the top down, with their walls."""
    from scipy import ndimage

    lumen = inside & (hu < LUMEN_HU)
    airway = np.zeros_like(lumen)
    area_mm2 = grid.spacing_mm[0] * grid.spacing_mm[1]
    above: Binary | None = None
    for z in range(hu.shape[2] - 1, -1, -1):
        parts, count = ndimage.label(lumen[:, :, z])
        areas = np.bincount(parts.ravel(), minlength=count + 1) * area_mm2
        fitting = (areas >= AIRWAY_MM2[0]) & (areas <= AIRWAY_MM2[1])
        fitting[0] = False
        if above is None:
            here = _round_and_central(parts, fitting, inside[:, :, z])
        else:
            touched = np.bincount(parts[above], minlength=count + 1) > 0
            here = (fitting & touched)[parts]
        if above is None and not here.any():
            continue
        airway[:, :, z] = above = here
        if not here.any():
            break
    wall = [max(1, round(1.5 / mm)) for mm in grid.spacing_mm[:2]]
    return np.asarray(ndimage.binary_dilation(airway, np.ones((2 * wall[0] + 1, 2 * wall[1] + 1, 1))))


def _round_and_central(parts: npt.NDArray[np.int32], fitting: Binary, inside: Binary) -> Binary:
    """The one part of a slice that may be the trachea: compact, and no lung beside it is in its place."""
    from scipy import ndimage

    best, found = 0.0, 0
    for number in np.flatnonzero(fitting):
        box = ndimage.find_objects((parts == number).astype(np.uint8))[0]
        wide, deep = (s.stop - s.start for s in box)
        fill = np.count_nonzero(parts[box] == number) / (wide * deep)
        middle = (box[0].start + box[0].stop) / 2 / parts.shape[0]
        if fill > 0.6 and 0.5 < wide / deep < 2 and abs(middle - 0.5) < 0.15 and fill > best:
            best, found = fill, int(number)
    return np.asarray(parts == found) if found else np.zeros_like(inside)


def _closed(side: Binary, grid: Grid) -> Binary:
    """Closed by a ball of `CLOSING_MM`, with air beyond the faces of the scan."""
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
