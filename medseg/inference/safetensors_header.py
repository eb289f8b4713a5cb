"""The header of a safetensors file; its size is checked here, everything else by safetensors.

The format: eight bytes, the header's length as a little-endian integer; the header, JSON; the
tensors' bytes without gaps (https://huggingface.co/docs/safetensors, section Format).
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from medseg.errors import ModelRefused
from medseg.system.safe_parsing import json_data

# Room for a hundred folds of a hundred tensors and the ids of a hundred thousand training cases; the limit
# of safetensors itself is 100 MB. Parsing a hostile header of this size takes 120 MB.
_HEADER_BYTES = 8 << 20
_DIMENSIONS = 8


@dataclass(frozen=True)
class Tensor:
    """Type and shape of one tensor, from the header.

    Attributes:
        dtype: Type as safetensors spells it, such as ``F32``.
        shape: Size along each axis; () for a single number.
    """

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class TensorFile:
    """The contents of a safetensors file according to its header.

    Attributes:
        metadata: Free text by name.
        tensors: Type and shape of each tensor by name.
        size: Size of the file in bytes.
    """

    metadata: Mapping[str, str]
    tensors: Mapping[str, Tensor]
    size: int

    @classmethod
    def read(cls, path: Path) -> TensorFile:
        """The checked header of a file; its tensors fill the rest of it exactly.

        If the header has a name twice, the last entry counts, as for every reader of the format.

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
                _check_header_length(file.read(8), status.st_size)
            # A memory map: the slices know shape and type, and no byte of a tensor is read.
            with safe_open(path, framework="np") as file:
                tensors = {name: _tensor(name, file.get_slice(name)) for name in file.keys()}  # noqa: SIM118 - no dict
                return cls(file.metadata() or {}, tensors, status.st_size)
        except (OSError, ValueError, SafetensorError) as error:
            text = " ".join((getattr(error, "strerror", None) or str(error)).split())
            raise ModelRefused(
                f"not a whole safetensors file: {text if text.isprintable() else ascii(text):.160}",
                where=path,
                remedy="copy the model file again, or train it again",
                reason="model-damaged",
            ) from None


def metadata_of(content: bytes) -> Mapping[str, str]:
    """The metadata in the content of a whole file.

    Raises:
        ValueError: the header is not valid.
    """
    (length,) = struct.unpack_from("<Q", content)
    header: Any = json_data(content[8 : 8 + length].decode())
    metadata: Mapping[str, str] = header.get("__metadata__", {})
    return metadata


def shown(name: str) -> str:
    """A name out of a file, safe to print: short, and without control characters."""
    return name if name.isprintable() and len(name) <= 80 else f"{name!a:.80}"


def _tensor(name: str, part: Any) -> Tensor:
    shape = tuple(part.get_shape())
    if len(shape) > _DIMENSIONS:
        raise ValueError(f"{shown(name)} has {len(shape)} dimensions, at most {_DIMENSIONS} are read")
    return Tensor(part.get_dtype(), shape)


def _check_header_length(first: bytes, size: int) -> None:
    if len(first) < 8:
        raise ValueError(f"it has {len(first)} bytes")
    length: int = struct.unpack("<Q", first)[0]
    if not 2 <= length <= size - 8:
        raise ValueError(f"its header says it is {length} bytes long, the file has {size}")
    if length > _HEADER_BYTES:
        raise ValueError(f"its header is {length} bytes long, at most {_HEADER_BYTES} are read")
