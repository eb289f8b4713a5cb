"""Siemens mosaics: DICOM images that hold the slices of a volume as tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil, sqrt

import numpy as np

from medseg.errors import InputRefused
from medseg.io.dicom import part10
from medseg.io.dicom.slice import Slice


def untiled(group: Sequence[Slice]) -> list[Slice]:
    """The slices of a series, with mosaics split into their tiles.

    Number of tiles, normal and position come from the CSA header, as nibabel reads it
    (`nibabel.nicom.dicomwrappers.MosaicWrapper`): ImagePositionPatient of a mosaic refers to
    the whole tiled image, not to a slice.

    Raises:
        InputRefused: the CSA header is missing or does not fit the image (``mosaic``).
    """
    return [part for one in group for part in (_tiles(one) if "MOSAIC" in one.image_type else (one,))]


def _tiles(one: Slice) -> list[Slice]:
    try:
        ds = part10.header(one.path, None)
        with part10.quiet():  # nibabel calls its DICOM readers experimental
            from nibabel.nicom.dicomwrappers import MosaicWrapper

            wrapper = MosaicWrapper(ds)
            count = int(wrapper.n_mosaic)
            corner = np.asarray(wrapper.image_position, float)
            step = np.asarray(wrapper.slice_normal, float) * float(wrapper.voxel_sizes[2])
    except Exception as error:
        raise _refused(one, f"its CSA header cannot be read ({type(error).__name__})") from error
    across = ceil(sqrt(count)) if count > 0 else 0
    fits = across > 0 and one.rows % across == 0 and one.columns % across == 0
    if not fits or not (np.isfinite(corner).all() and np.isfinite(step).all() and step.any()):
        raise _refused(
            one, f"its CSA header does not fit: {count} slices in {one.columns} x {one.rows} pixels"
        )
    return [
        replace(
            one,
            frame=k,
            tiles=across,
            rows=one.rows // across,
            columns=one.columns // across,
            position_mm=tuple((corner + k * step).tolist()),
            depth_mm=float(np.linalg.norm(step)),
        )
        for k in range(count)
    ]


def _refused(one: Slice, why: str) -> InputRefused:
    return InputRefused(
        f"a Siemens mosaic, many slices tiled in one image: {why}",
        where=one.path,
        reason="mosaic",
        remedy="convert it to NIfTI, for example with dcm2niix",
    )
