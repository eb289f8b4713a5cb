"""A PyTorch checkpoint of another tool: its plain values, and its tensors one by one.

``torch.save`` has written zip archives since PyTorch 1.6; before, it wrote one pickle and then the numbers of
the tensors, as in lungmask's files. Both are read here, without torch's unpickler. Only the tensors that are
asked for are read, so that the momentum of an optimizer costs nothing.
"""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from medseg.errors import ModelRefused
from medseg.inference.safetensors_header import shown
from medseg.model_import.pickled_values import RefusedPickle, Storage, TensorPlace, pickled_values
from medseg.training.checkpoint_files import check_archive

_TYPES = {
    "DoubleStorage": torch.float64, "FloatStorage": torch.float32, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}  # fmt: skip
_PICKLE_BYTES = 16 << 20
_OLD_MAGIC = 0x1950A86A20F9469CFC6C
_OLD_PROTOCOL = 1001
_OLD_BYTES = 1 << 29  # lungmask's network has 125 MB


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        path: The file.
        values: Its content by name; tensors are :class:`TensorPlace`.
        starts: For the old format, where the numbers of each storage begin in the file.
    """

    path: Path
    values: Mapping[Any, Any] = field(repr=False)
    starts: Mapping[str, int] | None = field(default=None, repr=False)

    @classmethod
    def read(cls, path: Path) -> Checkpoint:
        """The checkpoint in a file; no tensor is read yet.

        Raises:
            ModelRefused: not a regular file (``model-kind``); not a whole checkpoint
                (``checkpoint-archive``); it needs more than tensors and plain values
                (``checkpoint-unsafe``); or it holds no table (``checkpoint-content``).
        """
        path = Path(path)
        try:
            first = b""
            if path.is_file():
                with path.open("rb") as file:
                    first = file.read(2)
            starts = None
            if first == b"\x80\x02":
                values, starts = _old(path)
            else:
                check_archive(path)
                with zipfile.ZipFile(path) as archive:
                    values = pickled_values(io.BytesIO(_entry(archive, "data.pkl")))
        except RefusedPickle as error:
            what = shown(str(error)[:160])
            raise refused(
                path, f"unsafe: its pickle has {what}; nothing was run or loaded", "checkpoint-unsafe"
            ) from None
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, NotImplementedError) as error:
            raise _damaged(path, error) from None
        if not isinstance(values, dict):
            raise refused(path, "it holds no table of named values", "checkpoint-content")
        return cls(path, values, starts)

    def tensors(self, wanted: Mapping[str, TensorPlace]) -> dict[str, torch.Tensor]:
        """The tensors at these places, in memory, by the same names.

        Raises:
            ModelRefused: the file does not hold them (``checkpoint-archive``).
        """
        try:
            if self.starts is not None:
                return self._old_tensors(wanted, self.starts)
            with zipfile.ZipFile(self.path) as archive:
                if _optional(archive, "byteorder") not in (None, b"little"):
                    raise ValueError("its numbers are big-endian")
                return _parts(wanted, lambda storage: _entry(archive, f"data/{storage.key}"))
        except (OSError, ValueError, KeyError, RuntimeError, EOFError, zipfile.BadZipFile) as error:
            raise _damaged(self.path, error) from None

    def _old_tensors(
        self, wanted: Mapping[str, TensorPlace], starts: Mapping[str, int]
    ) -> dict[str, torch.Tensor]:
        with self.path.open("rb") as file:

            def numbers(storage: Storage) -> bytes:
                file.seek(starts[storage.key])
                return file.read(_bytes_of(storage))

            return _parts(wanted, numbers)

    def sha256(self) -> str:
        """Hexadecimal SHA-256 of the file."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def refused(path: str | Path, problem: str, reason: str, remedy: str | None = None) -> ModelRefused:
    """The refusal of a file of another tool."""
    return ModelRefused(
        problem,
        where=path,
        remedy=remedy or "docs/guides/import.md says what is supported; if it should be, copy it again",
        reason=reason,
    )


def tensor_table(value: object) -> dict[str, TensorPlace] | None:
    """The state dict that a value is, or None: names, all with tensors."""
    if not isinstance(value, dict) or not value:
        return None
    if not all(isinstance(name, str) and isinstance(each, TensorPlace) for name, each in value.items()):
        return None
    return value


def type_of(place: TensorPlace) -> torch.dtype:
    """The type of a tensor."""
    return _TYPES[place.storage.kind]


def _damaged(path: Path, error: Exception) -> ModelRefused:
    problem = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return refused(path, f"not a complete checkpoint: {shown(problem[:120])}", "checkpoint-archive")


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    content = _optional(archive, name)
    if content is None:
        raise ValueError(f"its entry {shown(name)} is missing")
    return content


def _optional(archive: zipfile.ZipFile, name: str) -> bytes | None:
    """The content of an entry of ``torch.save``'s folder, whose name is that of the file."""
    folder = next(n.removesuffix("data.pkl") for n in archive.namelist() if n.endswith("data.pkl"))
    return archive.read(folder + name) if folder + name in archive.NameToInfo else None


def _bytes_of(storage: Storage) -> int:
    return storage.count * _TYPES[storage.kind].itemsize


def _parts(wanted: Mapping[str, TensorPlace], numbers: Callable[[Storage], bytes]) -> dict[str, torch.Tensor]:
    """The tensors at places, given how to read a storage; each storage is read once."""
    found, last, content = {}, None, b""
    for name, place in sorted(wanted.items(), key=lambda each: each[1].storage.key):
        if place.storage != last:
            last, content = place.storage, numbers(place.storage)
        found[name] = _shown_part(content, place)
    return {name: found[name] for name in wanted}


def _shown_part(content: bytes, place: TensorPlace) -> torch.Tensor:
    if len(content) < _bytes_of(place.storage):
        raise ValueError(f"storage {place.storage.key} has {len(content)} bytes")
    if not math.prod(place.shape):
        return torch.empty(place.shape, dtype=type_of(place))
    flat = torch.frombuffer(bytearray(content), dtype=type_of(place), count=place.storage.count)
    return flat.as_strided(place.shape, place.stride, place.offset).contiguous()


def _old(path: Path) -> tuple[Any, dict[str, int]]:
    """Values, and where each storage begins, of a file written before PyTorch 1.6."""
    size = path.stat().st_size
    if size > _OLD_BYTES:
        raise ValueError(f"{size} bytes: files of PyTorch before 1.6 are read up to {_OLD_BYTES}")
    with io.BytesIO(path.read_bytes()) as file:
        if pickled_values(file) != _OLD_MAGIC or pickled_values(file) != _OLD_PROTOCOL:
            raise ValueError("a pickle, but not of torch.save")
        system = pickled_values(file)
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise ValueError("its numbers are big-endian")
        begin = file.tell()
        values = pickled_values(file)
        if file.tell() - begin > _PICKLE_BYTES:
            raise ValueError(f"its table of weights takes more than {_PICKLE_BYTES} bytes")
        storages = {each.key: each for each in _storages(values)}
        keys = pickled_values(file)
        if not isinstance(keys, list) or not all(isinstance(key, str) and key in storages for key in keys):
            raise ValueError("its list of storages does not fit its tensors")
        starts, at = {}, file.tell()
        for key in keys:
            file.seek(at)
            count = int.from_bytes(file.read(8), "little")
            if count != storages[key].count:
                raise ValueError(f"storage {shown(key)} has another size than its tensors")
            starts[key] = at + 8
            at += 8 + _bytes_of(storages[key])
        if at > size:
            raise ValueError("the end of the file is missing")
    return values, starts


def _storages(value: Any) -> list[Storage]:
    """The storages of a table of tensors, in any order; deeper tables are not searched."""
    places = value.values() if isinstance(value, dict) else ()
    return [each.storage for each in places if isinstance(each, TensorPlace)]
