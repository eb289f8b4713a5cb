"""Pixels of DICOM slices: decoding, masking to the stored bits, rescaling to intensities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.filewriter import dcmwrite
from pydicom.pixels import get_decoder
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medseg.errors import InputRefused, first_line
from medseg.images.volume import Voxels
from medseg.io.decoder import client
from medseg.io.dicom import codestream, part10
from medseg.io.dicom.slice import Slice
from medseg.io.rescaling import narrowed, rescaled
from medseg.system import memory_budget
from medseg.system.notices import Notice, notify, send
from medseg.system.progress import show_step

# Allowance for header, icon and private data when a file is unpacked.
_BESIDE_BYTES = 64 << 20

_TRAILING = Notice("trailing-bytes", "ignored the bytes after the last pixel")
_HIGH_BITS = Notice("overlay-bits", "ignored bits above BitsStored, which are often an overlay")


def voxels(ordered: Sequence[Slice]) -> Voxels:
    """Rescaled intensities, (columns, rows, slices), in the smallest dtype that holds all of them.

    Padding values are rescaled like any other (PS3.3 C.7.5.1.1.2). MONOCHROME1 only inverts
    the display, not the numbers (PS3.3 C.7.6.3.1.2).

    Args:
        ordered: Slices of one volume, single-frame files or frames, in order.

    Raises:
        InputRefused: not one grey value per pixel (``pixel-type``), intensities that cannot be
            computed (``modality-lut``, ``rescale``), damaged or truncated pixels
            (``unreadable``), not enough memory (``too-large``).
    """
    first = ordered[0]
    _check_rescale(ordered)
    # Rescaled numbers may need 4 bytes, and widening holds two copies.
    shape = (first.columns, first.rows, len(ordered))
    memory_budget.check(8 * prod(shape), f"{' x '.join(map(str, shape))} voxels", where=first.path)
    out: Voxels | None = None
    notes: Counter[Notice] = Counter()
    done = 0
    for path, members in _by_file(ordered):
        stored = _stored(path, members, notes)
        for (k, one), pixels in zip(members, stored, strict=True):
            slope, intercept = one.rescale
            values = rescaled(
                pixels.T, 1.0 if slope is None else slope, 0.0 if intercept is None else intercept
            )
            if out is None:
                out = np.empty((*values.shape, len(ordered)), values.dtype, order="F")
            wider = np.result_type(out, values)
            if wider != out.dtype:
                # Only some slices needed uint16 or float32.
                out = out.astype(np.float32 if wider.kind == "f" else wider, order="F")
            out[:, :, k] = values
        done += len(members)
        show_step(done, len(ordered), "slices")
    for note, files in notes.items():
        send([replace(note, text=f"{note.text} (in {files} file(s))").at(first.path.parent)])
    assert out is not None  # there is at least one slice
    return out if out.dtype.kind == "f" else narrowed(out)


def _by_file(ordered: Sequence[Slice]) -> list[tuple[Path, list[tuple[int, Slice]]]]:
    """Each file with its slices and their index in the volume."""
    files: dict[Path, list[tuple[int, Slice]]] = {}
    for k, one in enumerate(ordered):
        files.setdefault(one.path, []).append((k, one))
    return list(files.items())


def check_kind(one: Slice) -> None:
    """Refuses pixels to which intensity = slope x stored + intercept does not apply."""
    if one.samples != 1 or one.photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise InputRefused(
            f"a colour or palette image, not grey values: {one.samples} sample(s) per pixel, "
            f"PhotometricInterpretation {one.photometric[:20] or 'missing'}",
            where=one.path,
            reason="pixel-type",
            remedy="pass the original series",
        )
    if one.has_lut:
        raise InputRefused(
            "intensities are given by a Modality LUT, which is not supported",
            where=one.path,
            reason="modality-lut",
            remedy="convert it to NIfTI, for example with dcm2niix",
        )


def _check_rescale(ordered: Sequence[Slice]) -> None:
    """Refuses a rescale that is not a number, or that only some of the slices have."""
    first = ordered[0]
    for one in ordered:
        if not all(v is None or np.isfinite(v) for v in one.rescale) or one.rescale[0] == 0:
            raise InputRefused(
                f"RescaleSlope and RescaleIntercept are {one.rescale}: intensities cannot be computed",
                where=one.path,
                reason="rescale",
                remedy="export the series again from the scanner or archive",
            )
        if [v is None for v in one.rescale] != [v is None for v in first.rescale]:
            raise InputRefused(
                f"only some slices have RescaleSlope and RescaleIntercept: {first.name} has {first.rescale}, "
                f"{one.name} has {one.rescale}",
                where=one.path,
                reason="rescale",
                remedy="export the series again from the scanner or archive",
            )
    if first.modality == "CT" and first.rescale[1] is None:
        notify(
            "no-rescale",
            "CT without RescaleIntercept; stored numbers are assumed to be HU",
            path=first.path.parent,
        )


def _stored(path: Path, members: Sequence[tuple[int, Slice]], notes: Counter[Notice]) -> Voxels:
    """The stored numbers of one file's slices: (slices, rows, columns)."""
    one = members[0][1]
    across = max(one.tiles, 1)
    rows, columns = one.rows * across, one.columns * across
    frames = [0] if one.tiles else [m.frame or 0 for _, m in members]
    shape = (rows, columns, one.frames)
    try:
        with part10.quiet():
            ds = part10.whole(path, 4 * prod(shape) + _BESIDE_BYTES)
            _check_overlay(ds, one, path)
            _check_size(ds, shape, path, notes)
            stored = _bits(_decoded(ds, frames, shape, path), ds, path, notes)
    except InputRefused as error:
        error.where = str(path)
        raise
    except RecursionError:
        raise _undecodable(path, "its sequences are nested too deeply") from None
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise _undecodable(path, first_line(error)) from error
    if not one.tiles:
        return stored
    tiles: Voxels = stored[0].reshape(across, one.rows, across, one.columns).swapaxes(1, 2)
    chosen: Voxels = tiles.reshape(-1, one.rows, one.columns)[[m.frame or 0 for _, m in members]]
    return chosen


def _decoded(ds: Any, frames: Sequence[int], shape: tuple[int, int, int], path: Path) -> Voxels:
    """The stored numbers, (frames, rows, columns); the worker process decodes compressed ones."""
    syntax = ds.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        # A bare data set, hence uncompressed, in the encoding that pydicom detected.
        implicit, _ = ds.original_encoding
        syntax = ds.file_meta.TransferSyntaxUID = (
            ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        )
    if not syntax.is_encapsulated:
        decode = get_decoder(syntax).as_array
        return np.stack([decode(ds, raw=True, index=i, correct_unused_bits=False)[0] for i in frames])
    codestream.check(ds, *shape)
    source = _packed(ds) if part10.is_packed(path) else path
    return client.decoded(source, frames, shape=shape[:2], expected_bytes=4 * prod(shape))


def _undecodable(path: Path, why: str) -> InputRefused:
    return InputRefused(
        f"the pixels of this slice cannot be decoded: {why}",
        where=path,
        reason="unreadable",
        remedy="export the series again, uncompressed if possible",
    )


def _check_overlay(ds: Any, one: Slice, path: Path) -> None:
    """Refuses reformatted views with graphics, such as pictures of a report."""
    planes = any(tag.element == 0x3000 and tag.group in range(0x6000, 0x6020, 2) for tag in tuple(ds.keys()))
    if planes and one.image_type[:2] == ("DERIVED", "SECONDARY"):
        raise InputRefused(
            "a derived secondary image with overlay graphics: a view for display, not a slice of a scan",
            where=path,
            reason="overlay",
            remedy="pass the original series",
        )


def _check_size(ds: Any, shape: tuple[int, int, int], path: Path, notes: Counter[Notice]) -> None:
    """Refuses pixel data whose length differs from rows x columns x frames."""
    if "PixelData" not in ds or ds.get("BitsAllocated") not in (8, 16, 32):
        raise InputRefused(
            f"pixels of {ds.get('BitsAllocated')} bits instead of integers of 8, 16 or 32 bits",
            where=path,
            reason="pixel-type",
            remedy="pass the original series",
        )
    syntax = ds.file_meta.get("TransferSyntaxUID")
    if syntax is not None and syntax.is_encapsulated:
        return
    rows, columns, frames = shape
    frame = rows * columns * ds.BitsAllocated // 8
    found, promised = len(ds.PixelData), frame * frames
    if found < promised or found >= promised + max(frame, 2):
        raise InputRefused(
            f"{found} bytes of pixel data, but {columns} x {rows} pixels x {frames} frame(s) "
            f"need {promised}: truncated or damaged",
            where=path,
            reason="unreadable",
            remedy="export the series again; this file was not copied whole",
        )
    if found > promised + 1:
        notes[_TRAILING] += 1


def _bits(stored: Voxels, ds: Any, path: Path, notes: Counter[Notice]) -> Voxels:
    """The numbers in the stored bits (PS3.5 8.1.1), sign extended."""
    allocated, bits = int(ds.BitsAllocated), int(ds.get("BitsStored") or ds.BitsAllocated)
    high = ds.get("HighBit")
    high = bits - 1 if high is None else int(high)
    if not 1 <= bits <= high + 1 <= allocated:
        raise InputRefused(
            f"BitsStored {bits} and HighBit {high} do not fit BitsAllocated {allocated}",
            where=path,
            reason="pixel-type",
            remedy="export the series again from the scanner or archive",
        )
    syntax = ds.file_meta.get("TransferSyntaxUID")
    if bits == allocated or (syntax is not None and syntax.is_encapsulated):
        return stored  # codecs know their precision and deliver numbers, not containers
    # Shifted to the top of the container and back, which extends the highest stored bit as the sign.
    up, down = allocated - 1 - high, allocated - bits
    cut: Voxels = np.right_shift(np.left_shift(stored, up), down)
    if high == bits - 1 and not np.array_equal(cut, stored):
        notes[_HIGH_BITS] += 1
    return cut


def _packed(ds: Any) -> bytes:
    """The data set as an uncompressed part 10 file."""
    file = BytesIO()
    dcmwrite(file, ds, enforce_file_format=False)
    return file.getvalue()
