"""Exported graphs on disk: those shipped with medseg, and a cache in the user's folder. Needs no torch.

A graph in the cache is a file named after the layers it was exported from, see
:mod:`medseg.inference.backends.onnx_export`. A link to it is named after what a model file says, so that the
graph is found without building the network.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeAlias

from medseg.errors import MedsegError
from medseg.recipe import Recipe
from medseg.system import user_folders
from medseg.system.atomic_write import replacing

_DIGEST_BYTES = hashlib.sha256().digest_size

Stage: TypeAlias = str
"""Which network of a model with several: ``coarse`` or ``fine`` with a section ``context``, or
``networks.0``, ``networks.1``, ... in a pipeline. It is the name of the network's submodule."""

_VERSIONS = ("medseg", "torch", "monai", "onnx")


def folder() -> Path:
    """The folder of cached graphs; it can be deleted at any time."""
    return user_folders.cache() / "graphs"


def shipped_folder() -> Path:
    """The folder of the graphs of shipped models, each named after its :func:`graph_key`."""
    return Path(str(resources.files("medseg").joinpath("models", "graphs")))


def versions() -> list[str]:
    """The versions of all packages that decide what an exported graph looks like."""
    return [f"{package} {_version(package)}" for package in _VERSIONS]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # where models are only used, not exported
        return "none"


def graph_key(
    recipe: Recipe, weights: str, shape: tuple[int, ...], *, free: bool, stage: Stage | None = None
) -> str:
    """A digest of everything that decides the function of a graph.

    Args:
        recipe: Defines the network.
        weights: The digest of a fold, see :meth:`medseg.inference.model_file.ModelFile.fold_digests`.
        shape: (N, C, ...) of the graph's input.
        free: Whether its sides may differ from ``shape``.
        stage: Which network of a model with several the graph is of.
    """
    network = recipe.network.model_dump(mode="json")
    facts: list[object] = [
        network,
        recipe.spatial_dims,
        recipe.in_channels,
        recipe.out_channels,
        shape,
        free,
        weights,
    ]
    if stage is not None and recipe.context is not None:
        facts += [stage, recipe.context.network.model_dump(mode="json")]
    elif stage is not None:
        sizes = recipe.network_sizes()[int(stage.rpartition(".")[2])]
        facts += [stage, sizes[0].model_dump(mode="json"), *sizes[1:]]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def find(key: str) -> bytes | None:
    """The graph of a key: one that is shipped, or one of these versions of all packages in the cache."""
    shipped = shipped_folder() / f"{key}.onnx"
    if shipped.is_file():
        return shipped.read_bytes()
    name = read(_link(key))
    return None if name is None else read(folder() / name.decode(errors="replace"))


def link(key: str, name: str) -> None:
    """Makes :func:`find` find the cached file of this name."""
    write(_link(key), name.encode())


def _link(key: str) -> Path:
    return folder() / (hashlib.sha256(f"{versions()} {key}".encode()).hexdigest() + ".link")


def read(path: Path) -> bytes | None:
    """The content that :func:`write` wrote; None if it is missing or damaged."""
    held = b""
    with suppress(OSError, ValueError):
        held = path.read_bytes()
    intact = hashlib.sha256(held[_DIGEST_BYTES:]).digest() == held[:_DIGEST_BYTES]
    return held[_DIGEST_BYTES:] if intact else None


def write(path: Path, content: bytes) -> None:
    """Writes content behind its SHA-256, if the folder can be written."""
    with suppress(OSError, MedsegError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            part.write_bytes(hashlib.sha256(content).digest() + content)
