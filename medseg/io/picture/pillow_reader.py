"""PNG and JPEG, decoded by Pillow; what Pillow would change without a word is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from medseg.io.picture.raster import Raster, check_page, check_size, unsupported
from medseg.system.notices import notify

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"

_ORIENTATION = 274
_GREY_ALPHA, _PALETTE = 4, 3
_SAVE_PLAIN = "save it as 8-bit grey or RGB"
# Frame headers of all JPEG processes; C4, C8 and CC are tables.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})


def read_png(path: Path, page: int | None) -> Raster:
    """The pixels of a PNG file.

    Raises:
        InputRefused: as :func:`medseg.io.picture.reader.decode`.
    """
    with path.open("rb") as file:
        head = file.read(33)
    if len(head) < 33 or head[12:16] != b"IHDR":
        raise ValueError("the PNG header is missing")
    width, height = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    bits, colours = head[24], head[25]
    check_size(width, height)
    if bits == 16 and colours != 0:
        raise unsupported(
            "a PNG with 16 bits per channel and several channels, which the decoder would round to 8 bits",
            "save it as TIFF, as 16-bit grey, or with 8 bits",
        )
    with Image.open(path, formats=["PNG"]) as image:
        check_page(getattr(image, "n_frames", 1), page)
        image.load()
        return of_pillow(image, 8 if colours == _PALETTE else bits)


def read_jpeg(path: Path, page: int | None) -> Raster:
    """The pixels of a JPEG file; of the pictures of a phone's multi-picture file the first.

    Raises:
        InputRefused: as :func:`medseg.io.picture.reader.decode`.
    """
    check_size(*_jpeg_size(path))
    with Image.open(path, formats=["JPEG", "MPO"]) as image:
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and page is None:
            notify("first-picture", f"the file holds {frames} pictures; the first is read", path=path)
        else:
            check_page(frames, page)
            image.seek(0 if page is None else page - 1)
        image.load()
        return of_pillow(image, 8, lossy=True)


def of_pillow(image: Image.Image, bits: int, *, lossy: bool = False) -> Raster:
    """The pixels of a loaded image, upright by its EXIF orientation."""
    made = _raster(image, bits, lossy)
    return turned(made, image.getexif().get(_ORIENTATION), getattr(image, "filename", ""))


def turned(raster: Raster, orientation: object, path: str | Path) -> Raster:
    """The raster upright, with a notice if it was not stored so."""
    if not isinstance(orientation, int) or not 2 <= orientation <= 8:  # 0 and others: not in the standard
        return raster
    notify(
        "exif-orientation",
        f"the picture is stored turned or mirrored (orientation {orientation}) and was put upright, as "
        "viewers show it: its mask must be upright as well",
        path=path,
    )
    return raster.upright(orientation)


def _raster(image: Image.Image, bits: int, lossy: bool) -> Raster:
    mode = image.mode
    transparent = image.info.get("transparency")
    if mode == "1":
        return Raster(np.asarray(image).astype(np.uint8) * 255, "grey", 1)
    if mode in ("P", "PA"):
        return _of_palette(image)
    if mode.startswith("I;16"):
        samples = np.asarray(image).astype(np.uint16)
        return Raster(samples, "grey", 16, lowest_alpha=_alpha_of_key(samples, transparent), lossy=lossy)
    if mode in ("L", "RGB"):
        samples = np.asarray(image)
        alpha = _alpha_of_key(samples, transparent)
        kind: Any = "grey" if mode == "L" else "colour"
        return Raster(samples, kind, bits, lowest_alpha=alpha, lossy=lossy)
    if mode in ("LA", "RGBA"):
        samples = np.asarray(image)
        alpha = float(samples[..., -1].min()) / 255
        if mode == "LA":
            return Raster(np.ascontiguousarray(samples[..., 0]), "grey", bits, lowest_alpha=alpha)
        return Raster(np.ascontiguousarray(samples[..., :3]), "colour", bits, lowest_alpha=alpha)
    if mode in ("I", "F"):
        return Raster(np.asarray(image), "grey", 32)
    raise unsupported(f"the picture is {mode}, not grey, RGB or a palette", _SAVE_PLAIN)


def _of_palette(image: Image.Image) -> Raster:
    numbers = np.asarray(image if image.mode == "P" else image.getchannel("P"))
    # Pillow expands palettes of every form; a picture of all 256 numbers shows their colours.
    every = Image.new("P", (256, 1))
    every.putdata(list(range(256)))
    table = image.getpalette("RGB") or []
    every.putpalette(table + [0] * (768 - len(table)))
    palette = np.asarray(every.convert("RGB"))[0]
    alpha = None
    if image.mode == "PA" or "transparency" in image.info:
        alpha = float(np.asarray(image.convert("RGBA"))[..., 3].min()) / 255
    return Raster(numbers, "palette", 8, palette=palette, lowest_alpha=alpha)


def _alpha_of_key(samples: Any, key: Any) -> float | None:
    """The smallest opacity if one colour is transparent; None without such a colour."""
    if key is None or isinstance(key, bytes):
        return None
    hit = samples == np.asarray(key, samples.dtype)
    return 0.0 if bool((hit.all(-1) if hit.ndim == 3 else hit).any()) else 1.0


def _jpeg_size(path: Path) -> tuple[int, int]:
    """Width and height by the first frame header."""
    with path.open("rb") as file:
        file.seek(2)
        while mark := file.read(2):
            if len(mark) < 2 or mark[0] != 0xFF:
                break
            if mark[1] == 0xFF:  # padding
                file.seek(-1, 1)
                continue
            if mark[1] in _WITHOUT_LENGTH:
                continue
            length = int.from_bytes(file.read(2), "big")
            if mark[1] in _FRAMES:
                frame = file.read(5)
                return int.from_bytes(frame[3:5], "big"), int.from_bytes(frame[1:3], "big")
            if length < 2 or mark[1] == 0xDA:
                break
            file.seek(length - 2, 1)
    raise ValueError("the JPEG data has no frame header")
