"""A trained model: one safetensors file with weights, recipe and provenance. Nothing is unpickled."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from medseg.errors import ModelRefused, UsageError
from medseg.io.atomic import replacing
from medseg.networks import build, channels_last
from medseg.recipe import Recipe

FORMAT = "medseg-model-1"
_HEADER = "medseg"


@dataclass(frozen=True, eq=False)
class Model:
    """Weights of one or more folds, the recipe that made them, and where they come from.

    Attributes:
        recipe: Everything needed to prepare scans, build the network and read its output.
        folds: One state dict a fold; their logits are averaged.
        provenance: Plain data: versions, data digest, training command, validation Dice.
    """

    recipe: Recipe
    folds: tuple[Mapping[str, torch.Tensor], ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of the file :meth:`save` writes; equal models have equal digests."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def networks(self) -> tuple[nn.Module, ...]:
        """One network a fold, with its weights, in evaluation mode.

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
        """Writes the model file; a reader never sees half of it."""
        path = Path(path)
        with replacing(path) as fresh:
            fresh.write_bytes(self.to_bytes())
        return path

    @classmethod
    def load(cls, source: str | Path) -> Model:
        """The model of a file, or the shipped one of that name.

        Raises:
            UsageError: no such file or shipped model (reason ``model-not-found``).
            ModelRefused: the file is not a whole medseg model, or its weights do not fit its
                recipe.
        """
        path = find(source)
        try:
            with safe_open(path, framework="pt") as file:
                header = _header(path, file.metadata())
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ModelRefused(
                f"not a whole safetensors file: {str(error).splitlines()[0]}",
                where=path,
                remedy="copy the model file again, or train it again",
                reason="model-damaged",
            ) from None
        try:
            recipe = Recipe.checked(header["recipe"])
        except UsageError as error:
            raise ModelRefused(
                f"the recipe in its header is not valid: {error.problem}",
                where=path,
                remedy="install the medseg version that made it",
                reason="model-recipe",
            ) from None
        folds = tuple(
            {
                name.partition(".")[2]: tensor
                for name, tensor in tensors.items()
                if name.partition(".")[0] == str(fold)
            }
            for fold in range(header["folds"])
        )
        model = cls(recipe, folds, header["provenance"])
        model.networks()
        return model


def find(source: str | Path) -> Path:
    """The file of a model given by path or by the name of a shipped one."""
    path = Path(source)
    if str(source) in shipped():
        return Path(str(resources.files("medseg").joinpath("models", f"{source}.safetensors")))
    if not path.is_file():
        raise UsageError(
            "no such model",
            where=source,
            remedy=f"give a .safetensors file or a shipped model: {', '.join(shipped()) or 'none'}",
            reason="model-not-found",
        )
    return path


def shipped() -> tuple[str, ...]:
    """Names of the models in the package."""
    folder = resources.files("medseg").joinpath("models")
    suffix = ".safetensors"
    return tuple(sorted(f.name.removesuffix(suffix) for f in folder.iterdir() if f.name.endswith(suffix)))


def _header(path: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    try:
        header = json.loads((metadata or {})[_HEADER])
        if header["format"] != FORMAT:
            raise ModelRefused(
                f"model format {header['format']!r:.40}, this version reads {FORMAT}",
                where=path,
                remedy="install the medseg version that made it",
                reason="model-format",
            )
        if not isinstance(header["provenance"], dict):
            raise ValueError("provenance")
        if not (isinstance(header["folds"], int) and 1 <= header["folds"] <= 100):
            raise ValueError("folds")
        return {key: header[key] for key in ("folds", "recipe", "provenance")}
    except (KeyError, ValueError, TypeError, RecursionError):
        raise ModelRefused(
            "a safetensors file, but not a medseg model: its header has no recipe",
            where=path,
            remedy="give a file written by `medseg train`",
            reason="model-foreign",
        ) from None


def _network(recipe: Recipe, weights: Mapping[str, torch.Tensor]) -> nn.Module:
    # On the meta device nothing is allocated until the shapes are known to fit.
    with torch.device("meta"):
        network = build(recipe)
    wanted = {name: (*t.shape, t.dtype) for name, t in network.state_dict().items()}
    found = {name: (*t.shape, t.dtype) for name, t in weights.items()}
    wrong = sorted(n for n in wanted.keys() | found.keys() if wanted.get(n) != found.get(n))
    if wrong:
        first = wrong[0]
        raise ModelRefused(
            f"{len(wrong)} weights do not fit the recipe's network, first {first}: "
            f"shape {found.get(first, 'missing')}, the network has {wanted.get(first, 'none')}",
            remedy="train it again, or correct the recipe in its header",
            reason="weights",
        )
    broken = [n for n, t in weights.items() if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    if broken:
        raise ModelRefused(
            f"{len(broken)} weights have values that are not finite, first {broken[0]}",
            remedy="train it again with a lower learning rate",
            reason="weights",
        )
    network.load_state_dict(dict(weights), assign=True)
    return channels_last(network.eval().requires_grad_(False))
