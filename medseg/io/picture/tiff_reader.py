"""TIFF and BigTIFF: exact samples by tifffile; LZW, JPEG and others by Pillow where it keeps all bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from medseg.errors import ResourceError
from medseg.images.volume import Voxels
from medseg.io.picture.pillow_reader import turned
from medseg.io.picture.raster import Raster, check_page, check_size, unsupported, upright
from medseg.system.notices import notify

MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of TIFF and BigTIFF, in both byte orders."""

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_LOSSLESS = {1, 2, 3, 4, 5, 8, 32946, 32773, 34925, 50000}
"""None, CCITT, LZW, Deflate, PackBits, LZMA, Zstandard."""

_ALPHA = (1, 2)
_INVERSE = {6: 8, 8: 6}
_MM_OF_UNIT = {2: 25.4, 3: 10.0}
_ORIENTATION = 274


def read_tiff(path: Path, page: int | None) -> Raster:
    """The pixels of one page of a TIFF file.

    Raises:
        InputRefused: as :func:`medseg.io.picture.reader.decode`.
        ResourceError: the compression needs imagecodecs (``missing-extra``).
    """
    with tifffile.TiffFile(path) as file:
        pages: list[Any] = [each for each in file.pages if not each.is_reduced]
        if not pages:
            raise ValueError("the file has no page")
        count = len(pages)
        if count == 1 and file.is_imagej:  # ImageJ keeps a stack behind one page
            count = int((file.imagej_metadata or {}).get("images", 1))
        number = check_page(count, page)
        if number >= len(pages):
            raise unsupported("a stack of ImageJ in one page", "save the plane as a picture of its own")
        chosen = pages[number]
        check_size(int(chosen.imagewidth), int(chosen.imagelength))
        photometric = int(chosen.photometric)
        if photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _YCBCR):
            raise unsupported(
                f"the colours are {chosen.photometric.name}",
                "save the picture as grey, RGB or with a palette",
            )
        if int(chosen.imagedepth) != 1:
            raise unsupported("the page is a volume", "save the planes as pictures of their own")
        tag = chosen.tags.get(_ORIENTATION)
        orientation = 1 if tag is None else int(tag.value)
        samples = _samples(path, chosen, orientation)
        return turned(_raster(path, chosen, samples, photometric), orientation, path)


def _samples(path: Path, page: Any, orientation: int) -> Voxels:
    """Samples (rows, columns) or (rows, columns, samples), not turned."""
    if page.dtype is None:
        raise unsupported(f"{page.bitspersample} bits per sample", "save it with 8 or 16 bits")
    if int(page.photometric) != _YCBCR:
        try:
            array = np.asarray(page.asarray())
        except ImportError:  # tifffile has Zstandard from Python 3.14 on
            pass
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
        else:
            return np.moveaxis(array, 0, -1) if array.ndim == 3 and int(page.planarconfig) == 2 else array
    samples = _by_pillow(path, page)
    # Pillow puts TIFF upright by itself.
    return upright(samples, _INVERSE.get(orientation, orientation)) if 2 <= orientation <= 8 else samples


def _by_pillow(path: Path, page: Any) -> Voxels:
    """The samples, upright, of a page whose compression only Pillow knows."""
    name = f"{page.compression.name}, {page.bitspersample} bits, {page.samplesperpixel} sample(s)"
    exact = page.bitspersample in (1, 8) or (page.bitspersample == 16 and page.samplesperpixel == 1)
    if not exact or int(page.photometric) == _WHITE_IS_ZERO or int(page.sampleformat) != 1:
        raise ResourceError(
            f"TIFF with this compression ({name}) needs imagecodecs, which is not installed",
            where=path,
            remedy="pip install 'medseg[pictures]', or save the picture without compression",
            reason="missing-extra",
        )
    with Image.open(path, formats=["TIFF"]) as image:
        image.seek(int(page.index))
        image.load()
        array = np.asarray(image)
    if array.dtype == np.bool_ or page.bitspersample != 16:
        return array.astype(np.uint8 if array.dtype != np.bool_ else np.bool_)
    return array.astype(np.uint16)


def _raster(path: Path, page: Any, samples: Voxels, photometric: int) -> Raster:
    bits, lossy = int(page.bitspersample), int(page.compression) not in _LOSSLESS
    extra: dict[str, Any] = {"lossy": lossy, "pixel_mm": _pixel_mm(page)}
    if samples.dtype == np.bool_:
        samples = samples.astype(np.uint8) * 255
    elif samples.dtype == np.uint8 and bits in (2, 4) and photometric != _PALETTE:
        samples = samples * np.uint8(255 // ((1 << bits) - 1))
    elif samples.dtype.kind not in "uif":
        raise unsupported(f"the samples are {samples.dtype}", "save it with 8 or 16 bits")
    alpha, kinds = None, tuple(int(each) for each in page.extrasamples)
    if kinds and kinds[-1] in _ALPHA and samples.ndim == 3 and samples.dtype.kind == "u":
        alpha = float(samples[..., -1].min()) / float(np.iinfo(samples.dtype).max)
        samples = samples[..., :-1]
    if photometric == _WHITE_IS_ZERO:
        if samples.dtype.kind != "u" or samples.ndim != 2:
            raise unsupported("white is zero (MinIsWhite)", "save the picture with black as zero")
        samples = np.asarray(np.iinfo(samples.dtype).max - samples)
        notify("white-is-zero", "the file stores white as 0 (MinIsWhite); values were inverted", path=path)
    if photometric == _PALETTE:
        # 16 bits per colour, red of all numbers first
        table = np.asarray(page.colormap)
        palette = (table >> 8 if table.max() > 255 else table).T.astype(np.uint8)
        return Raster(samples.reshape(samples.shape[:2]), "palette", bits, palette=palette, **extra)
    if samples.ndim == 3 and samples.shape[-1] == 1:
        samples = samples[..., 0]
    kind: Any = "grey" if samples.ndim == 2 else "colour"
    return Raster(np.ascontiguousarray(samples), kind, bits, lowest_alpha=alpha, **extra)


def _pixel_mm(page: Any) -> tuple[float, float] | None:
    """Size of a pixel along columns and rows by the resolution tags; None without a unit of length."""
    unit = page.tags.get("ResolutionUnit")
    found = [page.tags.get(name) for name in ("XResolution", "YResolution")]
    mm = _MM_OF_UNIT.get(0 if unit is None else int(unit.value))
    if mm is None or None in found:
        return None
    (a, b), (c, d) = (tag.value for tag in found)
    return (mm * b / a, mm * d / c) if min(a, b, c, d) > 0 else None
