"""Pictures as scans: one plane, on a grid that every picture of this size has.

Array axis 0 counts columns from the left, axis 1 rows from the top, and axis 2 has one plane. As in an axial
slice on a radiologist's screen, columns go to L and rows to P, so that a picture is shown upright wherever a
scan is: the grid's axes are ``LPS``. A pixel measures 1 mm along every axis, which stands for "one pixel",
unless `medseg.io.read_options.ReadOptions.pixel_mm` gives a size.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medseg.errors import InputRefused, UsageError
from medseg.images.grid import Grid
from medseg.images.volume import PICTURE, Source, Volume, Voxels
from medseg.io import path_checks, unsupported_formats
from medseg.io.error_context import refusing
from medseg.io.formats import PICTURES
from medseg.io.picture.raster import Raster
from medseg.io.read_options import DEFAULT_OPTIONS, ReadOptions
from medseg.io.rescaling import rescaled
from medseg.system import memory_budget
from medseg.system.notices import notify

# The decoded picture, upright, and as a scan of up to 4 bytes per sample.
_BYTES_PER_STORED_BYTE = 4
_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601


def decode(path: Path, page: int | None = None) -> Raster:
    """The pixels of a PNG, JPEG or TIFF file, recognised by content, upright.

    Args:
        path: The file.
        page: Which page of several, counted from 1.

    Raises:
        InputRefused: none of these formats (``format``), damaged (``unreadable``), too many pixels
            (``too-large``), several pages (``several-pages``), no such page (``no-volume``), or pixels that
            cannot be read without loss, such as CMYK (``pixel-type``).
        ResourceError: a compression that needs imagecodecs (``missing-extra``).
    """
    from medseg.io.picture import pillow_reader, tiff_reader

    with refusing(path, "picture"):
        head = path_checks.head(path)
        memory_budget.check(path.stat().st_size * _BYTES_PER_STORED_BYTE, "the pixels", where=path)
        if head.startswith(pillow_reader.PNG):
            return pillow_reader.read_png(path, page)
        if head.startswith(pillow_reader.JPEG):
            return pillow_reader.read_jpeg(path, page)
        if head.startswith(tiff_reader.MARKS):
            return tiff_reader.read_tiff(path, page)
        raise unsupported_formats.refusal(path, head, ", ".join(PICTURES))


def read(path: Path, options: ReadOptions = DEFAULT_OPTIONS) -> Volume:
    """The one channel of a picture; colours with equal channels are grey.

    Raises:
        InputRefused: in colour (``several-channels``), or as :func:`read_channels`.
    """
    return read_channels(path, options, channels=1)[0]


def read_channels(path: Path, options: ReadOptions = DEFAULT_OPTIONS, *, channels: int) -> tuple[Volume, ...]:
    """One volume per channel of a picture: (columns, rows, 1), LPS.

    Grey is taken for colour whose three channels are equal, and the other way round, with a notice.

    Args:
        path: PNG, JPEG or TIFF.
        options: ``volume`` (the page), ``pixel_mm`` and ``nonfinite``.
        channels: Number of channels that are needed; 3 for red, green and blue.

    Raises:
        InputRefused: another number of channels (``several-channels``), pixels that are partly transparent
            (``alpha``), or as :func:`decode`.
    """
    raster = decode(path, options.volume)
    with refusing(path, "picture"):
        check_alpha(raster, path)
        planes = _planes(raster, path, channels)
        grid = grid_of(planes[0], _pixel_mm(raster, path, options))
        source = Source(path=path, format=PICTURE, modality=PICTURE)
        return tuple(
            Volume(rescaled(plane.T[..., None], nonfinite=options.nonfinite, where=path), grid, source)
            for plane in planes
        )


def count_channels(path: Path, page: int | None = None) -> int:
    """The number of channels of a picture: 3 for colour, 1 for grey, also if stored as equal colours."""
    colours = decode(path, page).colours
    return 1 if is_grey(colours) else colours.shape[-1]


def read_luminance(path: Path, options: ReadOptions = DEFAULT_OPTIONS) -> Volume:
    """A picture in grey, for display: colours by their luminance (ITU-R BT.601), transparency ignored."""
    raster = decode(path, options.volume)
    colours = raster.colours
    if colours.shape[-1] == 3:
        grey: Voxels = (colours @ np.array(_LUMINANCE)).astype(np.float32)
    else:
        grey = colours[..., 0]
    source = Source(path=path, format=PICTURE, modality=PICTURE)
    array = rescaled(grey.T[..., None], nonfinite=0.0, where=path)
    return Volume(array, grid_of(grey, _pixel_mm(raster, path, options)), source)


def displayed(volumes: Sequence[Volume]) -> Volume:
    """The volume to show for a scan: the luminance of a picture in colour, otherwise the first channel."""
    first = volumes[0]
    if first.source.format != PICTURE or len(volumes) != 3:
        return first
    parts = [
        share * volume.array.astype(np.float32) for share, volume in zip(_LUMINANCE, volumes, strict=True)
    ]
    return Volume(np.asarray(sum(parts)), first.grid, first.source)


def grid_of(plane: Voxels, pixel_mm: tuple[float, float] = (1.0, 1.0)) -> Grid:
    """The grid of a picture.

    Args:
        plane: (rows, columns).
        pixel_mm: Size of a pixel along columns (from left to right) and rows.
    """
    rows, columns = plane.shape
    return Grid((columns, rows, 1), np.diag([-pixel_mm[0], -pixel_mm[1], 1.0, 1.0]))


def check_alpha(raster: Raster, path: Path) -> None:
    """Drops transparency that hides nothing, with a notice.

    Raises:
        InputRefused: some pixels are transparent (``alpha``).
    """
    if raster.lowest_alpha is None:
        return
    if raster.lowest_alpha < 1:
        raise InputRefused(
            "some pixels are transparent, and what is to be seen there is unknown",
            where=path,
            remedy="save the picture without transparency (alpha), on the background it is to have",
            reason="alpha",
        )
    notify("alpha-dropped", "the alpha channel is opaque everywhere and was dropped", path=path)


def _planes(raster: Raster, path: Path, channels: int) -> list[Voxels]:
    """The channels (rows, columns) that are needed."""
    colours = raster.colours
    found = colours.shape[-1]
    if found == 3 and channels == 1 and is_grey(colours):
        notify("colour-is-grey", "red, green and blue are equal everywhere: read as grey", path=path)
        return [colours[..., 0]]
    if found == 1 and channels == 3:
        notify("grey-as-colour", "a grey picture: red, green and blue are equal", path=path)
        return [colours[..., 0]] * 3
    if found != channels:
        raise InputRefused(
            f"the picture has {found} channel(s), but {channels} {'is' if channels == 1 else 'are'} needed",
            where=path,
            remedy="choose a model with that many channels, or convert the picture to grey",
            reason="several-channels",
        )
    return [colours[..., channel] for channel in range(found)]


def is_grey(colours: Voxels) -> bool:
    """Whether the channels of (rows, columns, channels) are equal."""
    return bool((colours == colours[..., :1]).all())


def _pixel_mm(raster: Raster, path: Path, options: ReadOptions) -> tuple[float, float]:
    chosen = options.pixel_mm
    if chosen is None:
        return 1.0, 1.0
    if chosen == "file":
        if raster.pixel_mm is None:
            raise InputRefused(
                "the file does not say how large a pixel is in millimetres",
                where=path,
                remedy="give the size itself: --pixel-mm 0.25",
                reason="no-geometry",
            )
        return raster.pixel_mm
    if not 0 < float(chosen) < float("inf"):
        raise UsageError(
            f"a pixel cannot measure {chosen} mm",
            where="--pixel-mm",
            remedy="give a number above 0, or file",
            reason="usage",
        )
    return float(chosen), float(chosen)
