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
from safetensors.torch import save, save_file
from torch import nn

from medseg.errors import ModelRefused
from medseg.inference.model_file import FORMAT, HEADER, ModelFile, StoredTensor, digest_of
from medseg.inference.safetensors_header import Tensor, shown
from medseg.networks import build, channels_last
from medseg.recipe import Recipe
from medseg.system.atomic_write import replacing

_DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64"}
_DTYPES |= {torch.int64: "I64", torch.int32: "I32", torch.bool: "BOOL", torch.uint8: "U8"}
_TYPES = {name: dtype for dtype, name in _DTYPES.items()}


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

    def check(self) -> None:
        """Refuses weights that do not fit; unlike :meth:`networks`, it holds one fold's network at a time.

        Raises:
            ModelRefused: the weights do not fit the recipe's network (reason ``weights``).
        """
        for weights in self.folds:
            _network(self.recipe, weights)

    def to_bytes(self) -> bytes:
        """The content of the model file. Equal models give equal bytes."""
        content: bytes = save(*self._content())
        return content

    def _content(self) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        """The tensors of the model file by name, which share their memory, and its metadata."""
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
        return tensors, {HEADER: json.dumps(header, sort_keys=True, allow_nan=False)}

    def save(self, path: str | Path) -> Path:
        """Writes the model file atomically and returns its path; the weights are not copied."""
        path, (tensors, metadata) = Path(path), self._content()
        with replacing(path) as fresh:
            fresh.touch()
            mode = fresh.stat().st_mode
            try:
                save_file(tensors, fresh, metadata)
                fresh.chmod(mode)  # safetensors makes files that only their owner can read
            except SafetensorError as error:
                raise OSError(str(error)) from error
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
        return cls.of_file(ModelFile.read(source, _check_names))

    @classmethod
    def of_file(cls, file: ModelFile) -> Model:
        """The model in a file that was read.

        Raises:
            ModelRefused: the weights do not fit the recipe's network (reason ``weights``).
        """
        try:
            _check_names(file.recipe, file.folds, {name: each.kind for name, each in file.tensors.items()})
            names = _empty(file.recipe).state_dict()
            folds = tuple(
                {name: _tensor(file.tensors[f"{fold}.{name}"]) for name in names}
                for fold in range(file.folds)
            )
            model = cls(file.recipe, folds, file.provenance)
            model.check()
        except ModelRefused as error:
            error.where = str(file.path)
            raise
        object.__setattr__(model, "_file", (file.digest, hashlib.sha256(model.to_bytes()).hexdigest()))
        return model

    def fold_digests(self) -> tuple[str, ...]:
        """The same as :meth:`medseg.inference.model_file.ModelFile.fold_digests` for the file."""
        return tuple(
            digest_of((name, Tensor(*kind), _bytes(fold[name])) for name, kind in _kinds(fold).items())
            for fold in self.folds
        )


def load_model(source: str | Path) -> Model:
    """The model in a file, or with a name that :func:`list_models` gives; not yet ready to segment.

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


def needed_bytes(recipe: Recipe) -> int:
    """Memory of one fold's weights in bytes; nothing is allocated to find out."""
    return sum(t.numel() * t.element_size() for t in _empty(recipe).state_dict().values())


def weight_kinds(recipe: Recipe) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Type and shape of every weight of a recipe's network; nothing is allocated to find out."""
    return {name: (t.dtype, tuple(t.shape)) for name, t in _empty(recipe).state_dict().items()}


# The dtype as safetensors spells it, and the shape.
_Kind: TypeAlias = tuple[str, tuple[int, ...]]


def _check_names(recipe: Recipe, folds: int, tensors: Mapping[str, Tensor]) -> None:
    """Raises ModelRefused if a file does not have exactly the weights of every fold."""
    wanted = _kinds(_empty(recipe).state_dict())
    found = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
    _check_fit({f"{fold}.{name}": kind for fold in range(folds) for name, kind in wanted.items()}, found)


def _tensor(stored: StoredTensor) -> torch.Tensor:
    flat = bytearray(stored.content)  # a tensor must be able to write
    dtype = _TYPES[stored.kind.dtype]
    values = torch.frombuffer(flat, dtype=dtype) if flat else torch.empty(0, dtype=dtype)
    return values.reshape(stored.kind.shape)


def _bytes(tensor: torch.Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()


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
