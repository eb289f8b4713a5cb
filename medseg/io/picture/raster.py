"""The samples of a picture as they are stored, before they become a scan or a mask."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from medseg.errors import InputRefused
from medseg.images.volume import Voxels

MOST_PIXELS = 89_478_485
"""Pictures with more pixels are refused before they are decoded; Pillow warns of larger ones."""

HARMLESS = frozenset(
    {"alpha-dropped", "binary-mask", "colour-is-grey", "exif-orientation", "grey-as-colour", "white-is-zero"}
)
"""Reasons of notices that usually concern all pictures of a data set alike, and are given once for all."""


@dataclass(frozen=True)
class Raster:
    """A decoded picture, upright.

    Attributes:
        samples: (rows, columns) for ``grey`` and ``palette``, (rows, columns, channels) for ``colour``.
        kind: What the samples are: grey values, channels, or numbers of colours in ``palette``.
        bits: Bits of one sample in the file; grey values of 2 and 4 bits are spread over 0..255.
        palette: uint8 (colours, 3), red, green and blue; None for other kinds.
        lowest_alpha: The smallest opacity of a pixel, 0 to 1; None if the picture has no transparency.
        lossy: Whether the compression changes values.
        pixel_mm: Size of a pixel along columns and rows by the file; None if it does not say.
    """

    samples: Voxels
    kind: Literal["grey", "palette", "colour"]
    bits: int
    palette: npt.NDArray[np.uint8] | None = None
    lowest_alpha: float | None = None
    lossy: bool = False
    pixel_mm: tuple[float, float] | None = None

    @property
    def colours(self) -> Voxels:
        """(rows, columns, channels); grey has one channel, and a palette's colours have three."""
        if self.palette is not None:
            return self.palette[self.samples]
        return self.samples if self.kind == "colour" else self.samples[..., None]

    def upright(self, orientation: int) -> Raster:
        """The raster turned as an EXIF orientation says: see :func:`upright`."""
        turned = upright(self.samples, orientation)
        size = self.pixel_mm
        if size is not None and orientation >= 5:
            size = (size[1], size[0])
        return replace(self, samples=turned, pixel_mm=size)


def upright(samples: Voxels, orientation: int) -> Voxels:
    """The samples as a viewer shows them.

    Args:
        samples: (rows, columns, ...) as stored.
        orientation: EXIF and TIFF tag 274, 1 to 8 (TIFF 6.0, section 8): where the first stored row and
            column are to be shown. 1 is top and left.
    """
    if orientation >= 5:  # rows are shown as columns
        samples = np.swapaxes(samples, 0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    return np.ascontiguousarray(samples)


def check_size(width: int, height: int) -> None:
    """Refuses a picture with too many pixels, before it is decoded.

    Raises:
        InputRefused: more than :data:`MOST_PIXELS` (``too-large``).
    """
    if width * height > MOST_PIXELS:
        raise InputRefused(
            f"the picture has {width} x {height} pixels; at most {MOST_PIXELS} are decoded",
            remedy="cut it into parts, or save it with fewer pixels",
            reason="too-large",
        )


def check_page(count: int, page: int | None) -> int:
    """The index of the chosen page of a file with ``count`` pages.

    Raises:
        InputRefused: several pages and none chosen (``several-pages``), or no such page (``no-volume``).
    """
    if page is None and count > 1:
        raise InputRefused(
            f"the file has {count} pages, and a picture is one plane",
            remedy=f"choose one with --volume N (1 to {count}), or convert the stack to NIfTI",
            reason="several-pages",
        )
    if page is not None and not 1 <= page <= count:
        raise InputRefused(
            f"no page {page}: the file has {count}",
            remedy=f"choose a number from 1 to {count}",
            reason="no-volume",
        )
    return 0 if page is None else page - 1


def unsupported(problem: str, remedy: str) -> InputRefused:
    """The refusal of a picture whose pixels have a meaning that medseg does not read (``pixel-type``)."""
    return InputRefused(problem, remedy=remedy, reason="pixel-type")
