"""The worker process for decoders written in C, which may crash or be killed without harm to medseg.

`medseg.io.decoder.client` starts this file as a script. It only imports the part of medseg that
all workers share, so that it starts quickly, and each library when a task needs it.

A request is one line of JSON followed by ``payload`` bytes. The answer is one line of JSON:
``error`` and ``reason``, or ``facts``, ``dtype`` and ``shape`` followed by the array's bytes.
Nothing is pickled.
"""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Any, BinaryIO

from medseg.system.processes import ignore_signals, limit_growth, send, take_pipes

# Allowance for a library's tables, tiles and buffers besides the data themselves.
_ROOM_BYTES = 256 << 20
_ITK_FACTS = ("NRRD_space",)


def main() -> None:
    """Answers requests until the pipe closes."""
    ignore_signals(signal.SIGINT)
    requests, answers = take_pipes(silence_stderr=True)
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    serve(requests, answers)


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """One answer on ``answers`` for each request on ``requests``, until these end."""
    while line := requests.readline():
        request = json.loads(line)
        payload = requests.read(request.get("payload", 0))
        if hasattr(signal, "alarm"):
            # If the parent is killed while a decoder hangs, nobody else ends this process.
            signal.alarm(int(request["seconds"]) + 5)
        answer, array = _answer(request, payload)
        if hasattr(signal, "alarm"):
            signal.alarm(0)
        send(answer, answers)
        if array is not None:
            answers.write(memoryview(array).cast("B") if array.size else b"")
            answers.flush()


def _answer(request: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], Any]:
    try:
        facts, array = TASKS[request["task"]](request, payload)
    except MemoryError:
        return {
            "error": "decoding needs more memory than the header accounts for",
            "reason": "too-large",
        }, None
    except Exception as error:
        return {"error": f"{error}" or type(error).__name__, "reason": "unreadable"}, None
    if array is None:
        return {"facts": facts}, None
    return {"facts": facts, "dtype": array.dtype.str, "shape": array.shape}, array


def limit(data_bytes: int) -> None:
    """Limits this process's growth to ``data_bytes`` and an allowance (Linux); more cannot be allocated."""
    limit_growth(data_bytes + _ROOM_BYTES)


def setup(request: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], None]:
    """Takes over the parent's module search path."""
    sys.path[:] = request["sys_path"]
    return {"pid": os.getpid()}, None


def frames(request: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], Any]:
    """Stored values of some frames of a DICOM file: (frame, row, column).

    The request has ``path`` (None: the payload is the file), ``frames`` (from 0), ``rows``,
    ``columns`` and ``expected_bytes``.
    """
    import numpy as np
    import pydicom
    from pydicom.pixels import pixel_array

    path = request["path"]
    size = len(payload) if path is None else Path(path).stat().st_size
    limit(3 * request["expected_bytes"] + 2 * size)
    ds = pydicom.dcmread(io.BytesIO(payload) if path is None else path, force=True)
    if int(ds.get("SamplesPerPixel", 1)) != 1:
        raise ValueError("the pixels are in colour, not one grey value each")
    shape = (request["rows"], request["columns"])
    if (int(ds.Rows), int(ds.Columns)) != shape:
        raise ValueError(f"the image has {ds.Rows} x {ds.Columns} pixels, not {shape[0]} x {shape[1]}")
    total = int(ds.get("NumberOfFrames", 1) or 1)
    decoded = []
    for index in request["frames"]:
        _check_end(ds, index, total)
        frame = (
            _jpeg_12_bit(ds, index, total) if _is_jpeg_12_bit(ds) else pixel_array(ds, index=index, raw=True)
        )
        if frame.shape != shape:
            raise ValueError(f"frame {index + 1} decodes to {frame.shape}, not {shape}")
        decoded.append(frame)
    if len({frame.dtype for frame in decoded}) > 1:
        raise ValueError("its frames have different pixel types")
    array = np.stack(decoded)
    return {}, np.ascontiguousarray(array, array.dtype.newbyteorder("="))


def _codestream(ds: Any, index: int, total: int) -> bytes:
    """The compressed bytes of one frame."""
    from pydicom.encaps import get_frame

    offsets = ds.get("ExtendedOffsetTable"), ds.get("ExtendedOffsetTableLengths")
    extended = None if None in offsets else offsets
    stream: bytes = get_frame(ds.PixelData, index, number_of_frames=total, extended_offsets=extended)
    return stream


def _check_end(ds: Any, index: int, total: int) -> None:
    """Refuses JPEG, JPEG-LS and JPEG 2000 data that end before their end marker.

    Decoders silently fill in missing data. The marker is FFD9 in all three families
    (ISO 10918-1 B.1.1.3 EOI, ISO 14495-1 EOI, ISO 15444-1 A.4.4 EOC) and cannot occur within the
    data. Bytes after it are padding: 00 by PS3.5 A.4, FF by some writers.
    """
    syntax = str(ds.file_meta.TransferSyntaxUID)
    if not syntax.startswith(_MARKED):
        return
    if b"\xff\xd9" not in _codestream(ds, index, total)[-_PADDING_BYTES:]:
        raise ValueError(f"the compressed data of frame {index + 1} are truncated: no end marker")


# PS3.5 A.4.1-A.4.4: 1.2.840.10008.1.2.4.50-.93 are JPEG, JPEG-LS and JPEG 2000; .100 and up video,
# .201 and up high-throughput JPEG 2000.
_MARKED = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (5, 7, 8, 90, 91, 201, 202, 203))
_PADDING_BYTES = 64
_JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"


def _is_jpeg_12_bit(ds: Any) -> bool:
    return str(ds.file_meta.TransferSyntaxUID) == _JPEG_EXTENDED and int(ds.BitsStored) > 8


def _jpeg_12_bit(ds: Any, index: int, total: int) -> Any:
    """One frame of 12-bit JPEG, which pydicom does not let GDCM decode although it can.

    pydicom hands GDCM the frame without its pixel format; with it, GDCM takes its 12-bit codec.
    """
    import gdcm
    import numpy as np

    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(_codestream(ds, index, total))
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((int(ds.Columns), int(ds.Rows), 1))
    image.SetDataElement(element)
    interpretation = gdcm.PhotometricInterpretation.GetPIType(str(ds.PhotometricInterpretation))
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(interpretation))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(_JPEG_EXTENDED)))
    signed, stored = int(ds.PixelRepresentation), int(ds.BitsStored)
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, stored, stored - 1, signed))
    # SWIG hands bytes over as text.
    text = image.GetBuffer()
    if text is None:
        raise ValueError(f"GDCM cannot decode frame {index + 1}: its data are corrupt")
    raw = text.encode("utf-8", "surrogateescape")
    values = np.frombuffer(raw, "<i2" if signed else "<u2")
    return values.reshape(int(ds.Rows), int(ds.Columns))


def itk_facts(request: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], None]:
    """A file's header as read by ITK; the request has ``path`` and ``imageio``."""
    reader = _itk_reader(request, 0)
    return {
        "size": [int(n) for n in reader.GetSize()],
        "components": int(reader.GetNumberOfComponents()),
        "spacing": list(reader.GetSpacing()),
        "origin": list(reader.GetOrigin()),
        "direction": list(reader.GetDirection()),
        "metadata": {k: reader.GetMetaData(k) for k in _ITK_FACTS if reader.HasMetaDataKey(k)},
    }, None


def itk_voxels(request: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], Any]:
    """The voxels ITK reads: (z, y, x), or (z, y, x, channel)."""
    import SimpleITK as sitk  # noqa: N813 - the alias of its own documentation

    image = _itk_reader(request, request["expected_bytes"]).Execute()
    _kept[:] = [image]  # the view below dangles once the image is collected
    return {}, sitk.GetArrayViewFromImage(image)


def _itk_reader(request: dict[str, Any], expected_bytes: int) -> Any:
    import SimpleITK as sitk  # noqa: N813

    _kept.clear()
    # ITK holds the packed file, the unpacked data, and the image.
    limit(2 * expected_bytes + 2 * request["file_bytes"])
    reader = sitk.ImageFileReader()
    reader.SetImageIO(request["imageio"])
    reader.SetFileName(request["path"])
    reader.ReadImageInformation()
    return reader


_kept: list[Any] = []
TASKS = {"setup": setup, "frames": frames, "itk_facts": itk_facts, "itk_voxels": itk_voxels}

if __name__ == "__main__":
    main()
