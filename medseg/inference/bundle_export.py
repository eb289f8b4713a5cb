"""A model as a bundle of MONAI, which ``python -m monai.bundle run`` segments scans with."""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from medseg.errors import UsageError
from medseg.inference.bundle_description import inference_config, metadata
from medseg.inference.bundle_network import network_component, weights_of
from medseg.inference.model_file import ModelFile
from medseg.inference.network_export import only_network, write_network
from medseg.io.overwrite_guard import OverwriteGuard, foreign_file
from medseg.recipe import Postprocess, Recipe
from medseg.recipe.bundle_pipeline import BundlePipeline
from medseg.system.atomic_write import replacing_folder
from medseg.system.output_folder import make_output_folder

if TYPE_CHECKING:
    from torch import nn


def export_bundle(source: str | Path, output: str | Path, *, licence: str | None = None) -> Path:
    """Writes a model as a MONAI bundle that makes the same masks, and returns its folder.

    The bundle holds ``configs/metadata.json``, ``configs/inference.json`` and ``models/model.pt``, the
    weights of one of MONAI's network classes; any other network becomes ``models/model.ts`` (TorchScript).
    Only models whose preparation, windows and decisions MONAI's transforms can express are accepted: recipes
    with ``pipeline: {kind: bundle}``. Other models are refused, because they average voxels when they
    resample and place windows differently, which no transform of MONAI does.

    Args:
        source: A model file, or a name of ``medseg models``.
        output: Folder to write, which must not exist or be empty.
        licence: Licence of the weights; None: the one in the model file.

    Raises:
        UsageError: no such model, one that MONAI's transforms cannot express (``export-format``), or a folder
            with files (``foreign-file``).
        ModelRefused: the model file is damaged, or the exported network gives other logits (``self-test``).
        ResourceError: writing fails (``disk``).

    Example:
        >>> try:
        ...     medseg.export_bundle("model.safetensors", "bundle")
        ... except medseg.UsageError as error:  # its recipe has no pipeline of kind bundle
        ...     print(error.reason)
        export-format
    """
    file, output = ModelFile.read(source), Path(output)
    rules = _expressible(file)
    OverwriteGuard([file.path]).check(output)
    if os.path.lexists(output) and not (output.is_dir() and not any(output.iterdir())):
        raise foreign_file(output)
    network, form = only_network(file)
    make_output_folder(output.parent)
    with replacing_folder(output) as part:
        _write(file, rules, network, form.shape, part, licence)
    return output


def _expressible(file: ModelFile) -> BundlePipeline:
    """The rules of a model that MONAI's transforms can say.

    Raises:
        UsageError: they cannot, with the reason (``export-format``).
    """
    recipe = file.recipe
    problem = ""
    if not isinstance(recipe.pipeline, BundlePipeline):
        kind = "medseg's own" if recipe.pipeline is None else f"that of {recipe.pipeline.kind}"
        problem = f"the way it prepares scans and places windows is {kind}"
    elif len(recipe.channels) > 1:
        problem = f"it has {len(recipe.channels)} channels"
    elif recipe.postprocess != Postprocess():
        problem = "its mask is cleaned afterwards (postprocess)"
    elif [label.value for label in recipe.labels] != [*range(1, len(recipe.labels) + 1)]:
        problem = "its labels are not 1, 2, 3, ..."
    if problem:
        raise UsageError(
            f"the model {recipe.name} cannot be expressed with MONAI's transforms: {problem}",
            where=file.path,
            remedy="medseg export MODEL -o PACKAGE; or --format torchscript for the network alone",
            reason="export-format",
        )
    return cast(BundlePipeline, recipe.pipeline)


def _write(
    file: ModelFile,
    rules: BundlePipeline,
    network: nn.Module,
    shape: tuple[int, ...],
    folder: Path,
    licence: str | None,
) -> None:
    import torch

    recipe: Recipe = file.recipe
    for name in ("configs", "models"):
        (folder / name).mkdir()
    component = network_component(recipe)
    if component is None:
        path = folder / "models" / "model.ts"
        write_network(network, shape, path, form="torchscript", facts={"model": recipe.name})
    else:
        torch.save(weights_of(component, network), folder / "models" / "model.pt")
    versions = {name: version(name) for name in ("monai", "torch", "numpy", "nibabel")}
    terms = licence or str(file.provenance.get("licence", "unknown"))
    files: dict[str, dict[str, Any]] = {
        "metadata.json": metadata(recipe, versions=versions, licence=terms, digest=file.digest),
        "inference.json": inference_config(recipe, rules, component),
    }
    for name, content in files.items():
        text = json.dumps(content, indent=4, ensure_ascii=False, allow_nan=False)
        (folder / "configs" / name).write_text(text + "\n", encoding="utf-8")
