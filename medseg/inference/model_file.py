"""The file of a trained model, read and checked without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, deserialize

from medseg.errors import ModelRefused, UsageError
from medseg.inference.model_files import find, refuse_pickles
from medseg.inference.safetensors_header import Tensor, TensorFile, metadata_of
from medseg.recipe import Recipe
from medseg.system.safe_parsing import json_data

FORMAT = "medseg-model-1"
HEADER = "medseg"


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as it lies in the file.

    Attributes:
        kind: Its type and shape.
        content: Its bytes.
    """

    kind: Tensor
    content: bytearray


@dataclass(frozen=True, eq=False)
class ModelFile:
    """The content of a model file.

    Whether the weights fit the recipe's network is not known yet: :class:`medseg.inference.model.Model`
    checks it, and a network whose graph was exported has passed the check.

    Attributes:
        recipe: Everything needed to prepare scans, build the network and read its output.
        folds: Number of folds.
        provenance: Plain data: versions, data digest, training command, validation Dice.
        tensors: The weights of all folds; the names of fold 0 begin with ``0.``.
        digest: Hexadecimal SHA-256 of the file.
        path: Where it was read.
    """

    recipe: Recipe
    folds: int
    provenance: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor] = field(repr=False)
    digest: str
    path: Path

    def fold_digests(self) -> tuple[str, ...]:
        """For each fold, a digest of the names, types, shapes and bytes of its weights.

        Tensors that belong to no fold are part of every digest.
        """
        prefixes = tuple(f"{fold}." for fold in range(self.folds))
        strangers = [name for name in self.tensors if not name.startswith(prefixes)]
        return tuple(self._digest(prefix, strangers) for prefix in prefixes)

    def _digest(self, prefix: str, strangers: list[str]) -> str:
        own = [name for name in self.tensors if name.startswith(prefix)]
        return digest_of(
            (name.removeprefix(prefix), tensor.kind, tensor.content)
            for name, tensor in ((name, self.tensors[name]) for name in [*own, *strangers])
        )

    @classmethod
    def read(
        cls,
        source: str | Path,
        check: Callable[[Recipe, int, Mapping[str, Tensor]], None] = lambda *_: None,
    ) -> ModelFile:
        """The file at a path, or the shipped one of that name.

        Its header is checked first, against the file's size. Weights and digest come from the same bytes, and
        the file may be replaced or overwritten afterwards.

        Args:
            source: A path, or a name.
            check: Called with the recipe, the number of folds and the types and shapes of the weights before
                any of them is read; it may raise a :class:`ModelRefused`.

        Raises:
            UsageError, ModelRefused: as :meth:`medseg.inference.model.Model.load`, except ``weights``.
        """
        path = find(source)
        refuse_pickles(path)
        file = TensorFile.read(path)
        header = _header(path, file.metadata)
        try:
            recipe = Recipe.checked(header["recipe"])
        except UsageError as error:
            raise ModelRefused(
                f"the recipe in its header is not valid: {error.problem}",
                where=path,
                remedy="install the medseg version that made it",
                reason="model-recipe",
            ) from None
        try:
            check(recipe, header["folds"], file.tensors)
        except ModelRefused as error:
            error.where = str(path)
            raise
        tensors, digest = _content(path, file)
        return cls(recipe, header["folds"], header["provenance"], tensors, digest, path)


def digest_of(weights: Iterable[tuple[str, Tensor, bytes | bytearray]]) -> str:
    """A digest of the weights of one fold, given their names, types and shapes, and bytes, in any order."""
    total = hashlib.sha256()
    for name, kind, content in sorted(weights, key=lambda each: each[0]):
        total.update(f"{name!r} {kind.dtype} {kind.shape} ".encode())
        total.update(hashlib.sha256(content).digest())
    return total.hexdigest()


def _header(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        header: Any = json_data(metadata[HEADER])
        if header["format"] != FORMAT:
            raise ModelRefused(
                f"model format {header['format']!r:.40}, this version reads {FORMAT}",
                where=path,
                remedy="install the medseg version that made it",
                reason="model-format",
            )
        if not isinstance(header["provenance"], dict):
            raise ValueError("provenance")
        if not (type(header["folds"]) is int and 1 <= header["folds"] <= 100):
            raise ValueError("folds")
        return {key: header[key] for key in ("folds", "recipe", "provenance")}
    except (KeyError, ValueError, TypeError):
        raise ModelRefused(
            "a safetensors file, but not a medseg model: its header has no recipe",
            where=path,
            remedy="give a file written by `medseg train`",
            reason="model-foreign",
        ) from None


def _content(path: Path, file: TensorFile) -> tuple[dict[str, StoredTensor], str]:
    """The tensors of a file whose header was checked, and the SHA-256 of the same bytes.

    A memory map would show later changes of the file, and end the process if the file was truncated.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(file.size + 1)
        tensors = {
            name: StoredTensor(Tensor(entry["dtype"], tuple(entry["shape"])), entry["data"])
            for name, entry in deserialize(content)  # type: ignore[no-untyped-call]
        }
        kinds = {name: tensor.kind for name, tensor in tensors.items()}
        unchanged = (
            len(content) == file.size and metadata_of(content) == file.metadata and kinds == file.tensors
        )
    except (SafetensorError, OSError, ValueError):
        unchanged = False
    if not unchanged:
        raise ModelRefused(
            "the file changed while it was being read",
            where=path,
            remedy="wait until it is written, then load it again",
            reason="model-damaged",
        )
    return tensors, hashlib.sha256(content).hexdigest()
