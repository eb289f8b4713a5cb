"""The header of a safetensors file, checked against the file before any tensor is allocated.

The format: eight bytes, the header's length as a little-endian integer; the header, JSON; the
tensors' bytes without gaps (https://huggingface.co/docs/safetensors, section Format).
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from medseg.errors import ModelRefused
from medseg.system.safe_parsing import json_data

# A hundred folds of a hundred tensors and the ids of a hundred thousand training cases fit. Parsed
# JSON takes up to forty times its text: this keeps a hostile header within 400 MB.
_HEADER_BYTES = 8 << 20
_ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1,
    "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4,
    "F64": 8, "I64": 8, "U64": 8,
}  # fmt: skip
_DIMENSIONS = 8


@dataclass(frozen=True)
class Tensor:
    """What the header says of one tensor.

    Attributes:
        dtype: As safetensors spells it, such as ``F32``.
        shape: Its size along each axis; () for a single number.
    """

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class TensorFile:
    """What a safetensors file holds, by its header.

    Attributes:
        metadata: Free text by name.
        tensors: The tensors by name.
    """

    metadata: Mapping[str, str]
    tensors: Mapping[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> TensorFile:
        """The checked header of a file; its tensors fill the rest of it exactly.

        Raises:
            ModelRefused: not a regular file (``model-kind``), or not a whole safetensors file
                (``model-damaged``).
        """
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise ModelRefused(
                    "this is a folder, pipe or device, not a model file",
                    where=path,
                    remedy="give the .safetensors file itself",
                    reason="model-kind",
                )
            with path.open("rb") as file:
                length = _header_length(file.read(8), status.st_size)
                text = file.read(length).decode("utf-8")
            return _parsed(text, status.st_size - 8 - length)
        except (OSError, ValueError) as error:  # a UnicodeDecodeError is a ValueError
            told = getattr(error, "strerror", None) or str(error)
            raise ModelRefused(
                f"not a whole safetensors file: {' '.join(told.split())[:160]}",
                where=path,
                remedy="copy the model file again, or train it again",
                reason="model-damaged",
            ) from None


def shown(name: str) -> str:
    """A name out of a file, safe to print: short, and without control characters."""
    return name if name.isprintable() and len(name) <= 80 else f"{name!a:.80}"


def _header_length(first: bytes, size: int) -> int:
    if len(first) < 8:
        raise ValueError(f"it has {len(first)} bytes")
    length: int = struct.unpack("<Q", first)[0]
    if not 2 <= length <= size - 8:
        raise ValueError(f"its header says it is {length} bytes long, the file has {size}")
    if length > _HEADER_BYTES:
        raise ValueError(f"its header is {length} bytes long, at most {_HEADER_BYTES} are read")
    return length


def _parsed(text: str, data_bytes: int) -> TensorFile:
    header = json_data(text, deepest=4)
    if not isinstance(header, dict):
        raise ValueError("its header is not a table of tensors")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata are not texts")
    spans: list[tuple[int, int]] = []
    tensors: dict[str, Tensor] = {}
    for name, entry in header.items():
        tensors[name], span = _tensor(name, entry)
        spans.append(span)
    end = 0
    for start, stop in sorted(spans):
        if start != end:
            raise ValueError(f"its tensors overlap or leave a gap at byte {end}")
        end = stop
    if end != data_bytes:
        raise ValueError(f"its tensors take {end} bytes, the file has {data_bytes} for them")
    return TensorFile(metadata, tensors)


def _tensor(name: str, entry: object) -> tuple[Tensor, tuple[int, int]]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{shown(name)} is not described as a tensor")
    dtype, shape, span = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise ValueError(f"{shown(name)} has the unknown type {dtype!a:.20}")
    if not _counts(shape) or len(shape) > _DIMENSIONS:
        raise ValueError(f"{shown(name)} has no possible shape")
    if not _counts(span) or len(span) != 2 or span[1] - span[0] != prod(shape) * _ITEM_BYTES[dtype]:
        raise ValueError(f"{shown(name)} does not take the bytes of its shape")
    return Tensor(dtype, tuple(shape)), (span[0], span[1])


def _counts(values: object) -> bool:
    """Whether this is a list of whole numbers that fit into 63 bits, none below 0."""
    return isinstance(values, list) and all(type(n) is int and 0 <= n < 2**63 for n in values)
