"""The bare network of a model as TorchScript or as a program of ``torch.export``, for other programs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from medseg.errors import ModelRefused, UsageError
from medseg.inference.backends.network_source import GraphForm, graph_forms, submodule
from medseg.inference.model_file import ModelFile
from medseg.io.overwrite_guard import OverwriteGuard
from medseg.recipe import Recipe
from medseg.system.atomic_write import replacing
from medseg.system.own_version import own_version
from medseg.system.quiet_libraries import quiet

if TYPE_CHECKING:
    import torch
    from torch import nn

NetworkForm = Literal["torchscript", "torch-export"]
_EXTRA_FILE = "medseg.json"
_SUFFIXES = {"torchscript": (".pt", ".ts"), "torch-export": (".pt2",)}


def export_network(source: str | Path, output: str | Path, *, form: NetworkForm = "torchscript") -> Path:
    """Writes the network of a model as one file that torch runs without medseg; returns its path.

    The network takes prepared windows, float32 (N, C, ...), and gives logits, float32 (N, labels, ...).
    The file does not prepare scans or turn logits into masks; its extra file ``medseg.json`` holds the
    recipe, the names of the labels and the shape of the windows. When it is written, its logits are compared
    with the model's.

    Args:
        source: A model file, or a name of ``medseg models``.
        output: The file: ``.pt`` or ``.ts`` for ``torchscript`` (``torch.jit.load``), ``.pt2`` for
            ``torch-export`` (``torch.export.load``), whose windows have a fixed shape.
        form: ``torchscript`` or ``torch-export``.

    Raises:
        UsageError: no such model, another suffix (``format``), or a model of several networks
            (``export-format``).
        ModelRefused: the model file is damaged, or the exported network gives other logits (``self-test``).
        ResourceError: writing fails (``disk``).

    Example:
        >>> medseg.export_network("model.safetensors", "network.pt").name
        'network.pt'
    """
    output = Path(output)
    if output.suffix not in _SUFFIXES[form]:
        raise UsageError(
            f"{form} is written to a file that ends in {' or '.join(_SUFFIXES[form])}",
            where=output,
            remedy=f"-o {output.stem}{_SUFFIXES[form][0]}",
            reason="format",
        )
    file = ModelFile.read(source)
    OverwriteGuard([file.path]).check(output)
    network, found = only_network(file)
    with replacing(output) as part:
        write_network(network, found.shape, part, form=form, facts=_facts(file, found))
    return output


def only_network(file: ModelFile) -> tuple[nn.Module, GraphForm]:
    """The one network of a model, in evaluation mode, and the shape of its windows.

    Raises:
        UsageError: the model has several (``export-format``).
    """
    from medseg.inference.model import Model

    forms = graph_forms(file.recipe)
    count = file.folds * len(forms)
    if count > 1:
        raise UsageError(
            f"the model {file.recipe.name} has {count} networks, and this format holds one",
            where=file.path,
            remedy="medseg export MODEL -o PACKAGE, a package holds all of them",
            reason="export-format",
        )
    return submodule(Model.of_file(file).networks()[0], forms[0].stage), forms[0]


def write_network(
    network: nn.Module, shape: tuple[int, ...], path: Path, *, form: NetworkForm, facts: dict[str, object]
) -> None:
    """Writes a network and compares its logits with those of the exported one.

    The file itself is not loaded: loading it could run code.

    Args:
        network: In evaluation mode, on the CPU.
        shape: (N, C, ...) of the windows.
        path: File to write.
        form: As for :func:`export_network`.
        facts: Content of the extra file.

    Raises:
        ModelRefused: the logits differ (``self-test``).
    """
    import torch

    windows = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    extra = {_EXTRA_FILE: json.dumps(facts, indent=1)}
    with quiet("torch"), torch.inference_mode(False), torch.no_grad():
        wanted = network(windows)
        if form == "torchscript":
            traced = torch.jit.trace(network, windows, check_trace=False)  # type: ignore[no-untyped-call]
            torch.jit.save(traced, os.fspath(path), _extra_files=extra)
            made: torch.Tensor = traced(windows)
        else:
            program = torch.export.export(network, (windows,))
            torch.export.save(program, path, extra_files=extra)
            made = program.module()(windows)
        difference = float((made - wanted).abs().max())
    if difference > 1e-4 * max(1.0, float(wanted.abs().max())):
        raise ModelRefused(
            f"the exported network gives other logits than the model: up to {difference:g} apart",
            where=path.name,
            remedy="try another --format",
            reason="self-test",
        )


def _facts(file: ModelFile, found: GraphForm) -> dict[str, object]:
    recipe: Recipe = file.recipe
    return {
        "medseg": own_version(),
        "model": {"name": recipe.name, "sha256": file.digest},
        "input": {"shape": list(found.shape), "dtype": "float32", "other_sides": found.free},
        "output": "logits",
        "labels": {label.name: label.value for label in recipe.painted},
        "recipe": recipe.model_dump(mode="json"),
    }
