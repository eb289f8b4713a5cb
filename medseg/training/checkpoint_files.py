"""PyTorch checkpoints, read as tensors and plain values only.

A checkpoint is a zip archive with a pickle inside, and unpickling can run any program. Therefore the
archive is checked first, and then read with torch's restricted unpickler (``weights_only=True``), which
knows only tensors and plain containers; its list of allowed types is never extended. No other module of
medseg opens a pickle.
"""

from __future__ import annotations

import hashlib
import re
import stat
import struct
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from medseg.errors import MedsegError, ModelRefused, first_line
from medseg.inference import exported_graphs
from medseg.inference.model import Model, needed_bytes
from medseg.inference.model_output import check_model_output
from medseg.inference.safetensors_header import shown
from medseg.recipe import Recipe
from medseg.system.own_version import own_version

IMPORTED = "imported_from_sha256"
"""Field of the provenance of a model that was imported, not trained."""
_ENTRIES = 20_000
_DIRECTORY_BYTES = 4 << 20
_PICKLE_BYTES = 16 << 20  # 2 MB for a network of ten thousand tensors
# A checkpoint holds the weights, AdamW's two moments of each, and perhaps averaged weights.
_TIMES_WEIGHTS = 8
_ROOM_BYTES = 16 << 20
# Names of the network in Lightning modules. Ours are "network", and "averaged" for the moving average of
# its weights, which becomes the model if there is one.
_PREFIXES = ("averaged.", "network.", "net.")


def import_weights(
    path: str | Path, recipe: Recipe | str | Path, *, output: str | Path | None = None
) -> Model:
    """A model made from a recipe and the weights in a PyTorch checkpoint.

    Args:
        path: A file written by ``torch.save`` (PyTorch 1.6 or later): a table of tensors, or a Lightning
            checkpoint, whose ``state_dict`` is read without the prefix ``network.`` or ``net.``.
        recipe: Recipe that the weights were trained with; its network must have exactly these tensors.
            A recipe, the path of its file, or the name of a shipped one.
        output: Model file to write, ending in ``.safetensors``; None to write none.

    Raises:
        UsageError: the output has another suffix (``format``) or no folder (``no-folder``), would replace an
            input (``overwrites-input``) or a file that is not an imported model (``foreign-file``).
        ModelRefused: as :func:`contents`; the file holds no table of tensors (``checkpoint-content``); or
            the tensors do not fit the recipe's network, or are not finite (``weights``).

    Example:
        >>> weights = medseg.load_model("model.safetensors").folds[0]
        >>> torch.save(dict(weights), "weights.pt")
        >>> medseg.import_weights("weights.pt", "tiny.yaml", output="imported.safetensors").recipe.name
        'tiny_3d'
    """
    if output is not None:
        output = Path(output)
        check_model_output(
            output, [path, *([] if isinstance(recipe, Recipe) else [recipe])], is_own=is_imported
        )
    recipe = recipe if isinstance(recipe, Recipe) else Recipe.read(recipe)
    path = Path(path)
    held = contents(path, max_bytes=_TIMES_WEIGHTS * needed_bytes(recipe) + _ROOM_BYTES)
    with path.open("rb") as file:
        source = hashlib.file_digest(file, "sha256").hexdigest()
    weights = _weights(held, path)
    provenance = {
        "medseg": own_version(),
        "torch": torch.__version__,
        "recipe_digest": recipe.digest,
        IMPORTED: source,
        "research_use_only": True,
    }
    model = Model(recipe, (weights,), provenance)
    try:
        model.networks()
    except ModelRefused as error:
        error.where = str(path)
        raise
    if output is not None:
        model.save(output)
        exported_graphs.export(model)
    return model


def is_imported(path: Path) -> bool:
    """Whether a file is a model that was imported, not trained."""
    try:
        return IMPORTED in Model.load(path).provenance
    except MedsegError:
        return False


def contents(path: Path, *, max_bytes: int | None = None) -> dict[str, Any]:
    """The content of a checkpoint by name: tensors, on the CPU, and plain values.

    Args:
        path: Path of the checkpoint.
        max_bytes: A larger file is refused before it is opened.

    Raises:
        ModelRefused: not a regular file (``model-kind``); not a complete archive as ``torch.save``
            writes it (``checkpoint-archive``); larger than ``max_bytes`` (``checkpoint-size``); its
            pickle needs more than tensors and plain values (``checkpoint-unsafe``); or it holds no table
            (``checkpoint-content``).
    """
    check_archive(path, max_bytes)
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise _not_loaded(path, error) from None
    if not isinstance(held, dict) or not all(isinstance(name, str) for name in held):
        raise _refused(path, "it holds no table of named weights", reason="checkpoint-content")
    return dict(held)


def _not_loaded(path: Path, error: Exception) -> ModelRefused:
    message = str(error)
    named = re.search(r"GLOBAL ([\w.]{1,80})", message)
    if named or type(error).__name__ == "UnpicklingError":
        what = (
            f"its pickle names {named[1]}" if named else "its pickle has more than tensors and plain values"
        )
        return _refused(path, f"unsafe: {what}; nothing was run or loaded", reason="checkpoint-unsafe")
    return _refused(
        path, f"not a complete checkpoint: {shown(first_line(error))}", reason="checkpoint-archive"
    )


def _refused(path: Path, problem: str, *, reason: str) -> ModelRefused:
    remedy = "save only the weights again: torch.save(network.state_dict(), 'weights.pth')"
    return ModelRefused(problem, where=path, remedy=remedy, reason=reason)


def check_archive(path: Path, max_bytes: int | None = None) -> None:
    """Refuses, before anything is unpacked, an archive that ``torch.save`` would not have written.

    Raises:
        ModelRefused: as :func:`contents`, for reasons ``model-kind``, ``checkpoint-size`` and
            ``checkpoint-archive``.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise _refused(path, "this is a folder, pipe or device, not a checkpoint", reason="model-kind")
        if max_bytes is not None and status.st_size > max_bytes:
            problem = f"{status.st_size} bytes: a checkpoint of the recipe's network has at most {max_bytes}"
            raise _refused(path, problem, reason="checkpoint-size")
        with path.open("rb") as file:
            directory = _directory_bytes(file.read(4), _tail(path, status.st_size))
        if directory > _DIRECTORY_BYTES:
            raise ValueError(f"its table of contents takes {directory} bytes")
        with zipfile.ZipFile(path) as archive:
            _check_entries(archive.infolist(), status.st_size)
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, struct.error) as error:
        problem = getattr(error, "strerror", None) or str(error)
        raise _refused(
            path, f"not a PyTorch checkpoint: {problem:.160}", reason="checkpoint-archive"
        ) from None


def _tail(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, size - (1 << 16) - 128))
        return file.read()


def _directory_bytes(first: bytes, tail: bytes) -> int:
    """Size in bytes of the table of contents, as the archive states it (APPNOTE.TXT 4.3.14, 4.3.16)."""
    if first != b"PK\x03\x04":
        raise ValueError("it is not a zip archive, which torch.save writes since PyTorch 1.6")
    at = tail.rfind(b"PK\x05\x06")
    if at < 0:
        raise ValueError("the end of the archive is missing")
    length: int = struct.unpack_from("<L", tail, at + 12)[0]
    at = tail.rfind(b"PK\x06\x06", 0, at)
    if length == 0xFFFFFFFF and at >= 0:
        length = struct.unpack_from("<Q", tail, at + 40)[0]
    return length


def _check_entries(entries: Iterable[zipfile.ZipInfo], size: int) -> None:
    entries = list(entries)
    if len(entries) > _ENTRIES:
        raise ValueError(f"{len(entries)} entries; at most {_ENTRIES} are read")
    names = [entry.filename for entry in entries]
    outside = [n for n in names if n.startswith(("/", "\\")) or ":" in n or ".." in re.split(r"[/\\]", n)]
    if outside:
        raise ValueError(f"unsafe: the path of its entry {shown(outside[0])} leads outside the archive")
    if len({name.casefold() for name in names}) < len(names):
        raise ValueError("two of its entries have the same name")
    if any(e.compress_type != zipfile.ZIP_STORED or e.file_size != e.compress_size for e in entries):
        raise ValueError("unsafe: it is compressed, which torch.save never does")
    if sum(entry.file_size for entry in entries) > size:
        raise ValueError("unsafe: its entries are larger than the file, so they overlap")
    pickles = [entry for entry in entries if entry.filename.endswith("data.pkl")]
    if len(pickles) != 1:
        raise ValueError("corrupt: it has no data.pkl, the table of weights")
    if pickles[0].file_size > _PICKLE_BYTES:
        raise ValueError(f"its data.pkl is larger than {_PICKLE_BYTES} bytes")


def _weights(held: Mapping[str, Any], path: Path) -> dict[str, torch.Tensor]:
    """The table of tensors, without Lightning's wrapping."""
    table = held.get("state_dict", held)
    if not isinstance(table, dict) or not table or not all(isinstance(name, str) for name in table):
        raise _refused(path, "it holds no table of named weights", reason="checkpoint-content")
    odd = [name for name, value in table.items() if not _plain(value)]
    if odd:
        raise _refused(path, f"{shown(odd[0])} is not a plain tensor of weights", reason="checkpoint-content")
    return network_weights(table)


def network_weights(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of the network alone, by their names in the network, from a Lightning module's state."""
    prefix = next((p for p in _PREFIXES if any(name.startswith(p) for name in state)), "")
    return {n.removeprefix(prefix): tensor for n, tensor in state.items() if n.startswith(prefix)}


def _plain(value: object) -> bool:
    """Whether this is an ordinary tensor in memory: not sparse, quantised, nested or without data."""
    return (
        isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not (value.is_quantized or value.is_nested)
    )
