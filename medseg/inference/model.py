"""A trained model: one safetensors file with weights, recipe and provenance. Nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save
from torch import nn

from medseg.errors import ModelRefused, UsageError
from medseg.inference.model_files import find, refuse_pickles
from medseg.inference.safetensors_header import TensorFile, metadata_of, shown
from medseg.networks import build, channels_last
from medseg.recipe import Recipe
from medseg.system.atomic_write import replacing
from medseg.system.safe_parsing import json_data

FORMAT = "medseg-model-1"
_HEADER = "medseg"
_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64"}
_DTYPES |= {torch.int64: "I64", torch.int32: "I32", torch.bool: "BOOL", torch.uint8: "U8"}


@dataclass(frozen=True, eq=False)
class Model:
    """Weights of one or more folds, the recipe that made them, and where they come from.

    Attributes:
        recipe: Everything needed to prepare scans, build the network and read its output.
        folds: One state dict per fold; the logits of all folds are averaged.
        provenance: Plain data: versions, data digest, training command, validation Dice.

    Example:
        >>> model = medseg.load_model("model.safetensors")
        >>> model.recipe.name, len(model.folds)
        ('tiny_3d', 1)
    """

    recipe: Recipe
    folds: tuple[Mapping[str, torch.Tensor], ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    _file: tuple[str, str] | None = field(default=None, init=False, repr=False)
    """For a model read from a file: the SHA-256 of the file, and of :meth:`to_bytes` at that time."""

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of the file it was read from, otherwise of the file :meth:`save` would write.

        It equals the output of ``sha256sum`` for the file, even if this version of medseg would
        write the same model with more fields. It is computed on each access, so that weights changed
        in place since then have a digest of their own.
        """
        own = hashlib.sha256(self.to_bytes()).hexdigest()
        return self._file[0] if self._file is not None and self._file[1] == own else own

    def networks(self) -> tuple[nn.Module, ...]:
        """One network per fold, with its weights, in evaluation mode.

        Raises:
            ModelRefused: the weights do not fit the recipe's network (reason ``weights``).
        """
        return tuple(_network(self.recipe, weights) for weights in self.folds)

    def to_bytes(self) -> bytes:
        """The content of the model file. Equal models give equal bytes."""
        header = {
            "format": FORMAT,
            "folds": len(self.folds),
            "recipe": self.recipe.model_dump(mode="json"),
            "provenance": dict(self.provenance),
        }
        tensors = {
            f"{fold}.{name}": tensor.detach().cpu().contiguous()
            for fold, weights in enumerate(self.folds)
            for name, tensor in weights.items()
        }
        # One header key: safetensors writes several in no fixed order.
        content: bytes = save(tensors, {_HEADER: json.dumps(header, sort_keys=True, allow_nan=False)})
        return content

    def save(self, path: str | Path) -> Path:
        """Writes the model file atomically and returns its path."""
        path, content = Path(path), self.to_bytes()
        with replacing(path) as fresh:
            fresh.write_bytes(content)
        return path

    @classmethod
    def load(cls, source: str | Path) -> Model:
        """The model of a file, or the shipped one of that name.

        The header is checked first, against the file's size and the recipe's network; only
        tensors of the expected shapes and types are then read. The weights and the digest come from
        the same bytes, and the file may be replaced or overwritten afterwards.

        Raises:
            UsageError: no such file or shipped model (reason ``model-not-found``).
            ModelRefused: a folder, pipe or device (``model-kind``), a pickle, which is never
                loaded (``model-pickle``), not a whole safetensors file (``model-damaged``), of
                another program (``model-foreign``) or version (``model-format``), with a
                recipe that is not valid (``model-recipe``), or weights that do not fit it
                (``weights``).
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
        names = _fold_names(path, file, recipe, header["folds"])
        tensors, digest = _content(path, file)
        folds = tuple({name: tensors[f"{fold}.{name}"] for name in names} for fold in range(header["folds"]))
        model = cls(recipe, folds, header["provenance"])
        try:
            model.networks()
        except ModelRefused as error:
            error.where = str(path)
            raise
        object.__setattr__(model, "_file", (digest, hashlib.sha256(model.to_bytes()).hexdigest()))
        return model


def _content(path: Path, file: TensorFile) -> tuple[dict[str, torch.Tensor], str]:
    """The tensors of a file whose header was checked, and the SHA-256 of the same bytes.

    A memory map would show later changes of the file, and end the process if the file was truncated.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(file.size + 1)
        tensors: dict[str, torch.Tensor] = load_tensors(content)
        kinds = {name: (tensor.dtype, tensor.shape) for name, tensor in file.tensors.items()}
        unchanged = (
            len(content) == file.size and metadata_of(content) == file.metadata and _kinds(tensors) == kinds
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


def load_model(source: str | Path) -> Model:
    """The model in a file, or with a name of :func:`list_models`, without preparing it to segment.

    Args:
        source: A ``.safetensors`` file, or a name.

    Raises:
        UsageError: no such model (``model-not-found``).
        ModelRefused: as :meth:`Model.load`.

    Example:
        >>> medseg.load_model("model.safetensors").recipe.name
        'tiny_3d'
    """
    return Model.load(source)


def _header(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        header: Any = json_data(metadata[_HEADER])
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


def needed_bytes(recipe: Recipe) -> int:
    """Memory of one fold's weights in bytes; nothing is allocated to find out."""
    return sum(t.numel() * t.element_size() for t in _empty(recipe).state_dict().values())


# The dtype as safetensors spells it, and the shape.
_Kind: TypeAlias = tuple[str, tuple[int, ...]]


def _fold_names(path: Path, file: TensorFile, recipe: Recipe, folds: int) -> list[str]:
    """Names of the weights of one fold, after checking that the file has exactly those of every fold."""
    wanted = _kinds(_empty(recipe).state_dict())
    found = {name: (tensor.dtype, tensor.shape) for name, tensor in file.tensors.items()}
    every = {f"{fold}.{name}": kind for fold in range(folds) for name, kind in wanted.items()}
    try:
        _check_fit(every, found)
    except ModelRefused as error:
        error.where = str(path)
        raise
    return list(wanted)


def _empty(recipe: Recipe) -> nn.Module:
    """The recipe's network on the meta device: its weights have shapes but no memory."""
    with torch.device("meta"):
        return build(recipe)


def _kinds(weights: Mapping[str, torch.Tensor]) -> dict[str, _Kind]:
    return {name: (_DTYPES.get(t.dtype, str(t.dtype)), tuple(t.shape)) for name, t in weights.items()}


def _check_fit(wanted: Mapping[str, _Kind], found: Mapping[str, _Kind]) -> None:
    """Raises ModelRefused if a tensor is missing, unknown, or of another shape or type.

    Half precision is accepted for single: the file is half as large, and inference runs in single precision.
    """
    names = wanted.keys() | found.keys()
    wrong = sorted(n for n in names if _single(wanted.get(n)) != _single(found.get(n)))
    if wrong:
        first = wrong[0]
        raise ModelRefused(
            f"{len(wrong)} weights do not fit the recipe's network, first {shown(first)}: "
            f"{_described(found.get(first))}, the network has {_described(wanted.get(first))}",
            remedy="train the model again, or give the recipe it was trained with",
            reason="weights",
        )


def _single(kind: _Kind | None) -> _Kind | None:
    return ("F32", kind[1]) if kind and kind[0] == "F16" else kind


def _described(kind: _Kind | None) -> str:
    return "none" if kind is None else f"{kind[0]} {list(kind[1])}"


def _network(recipe: Recipe, weights: Mapping[str, torch.Tensor]) -> nn.Module:
    # On the meta device nothing is allocated until the shapes are known to fit.
    network = _empty(recipe)
    _check_fit(_kinds(network.state_dict()), _kinds(weights))
    broken = [n for n, t in weights.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    if broken:
        raise ModelRefused(
            f"{len(broken)} weights have values that are not finite, first {shown(broken[0])}",
            remedy="train the model again with a lower learning rate",
            reason="weights",
        )
    single = {n: t.float() if t.dtype == torch.float16 else t for n, t in weights.items()}
    network.load_state_dict(single, assign=True)
    return channels_last(network.eval().requires_grad_(False))
