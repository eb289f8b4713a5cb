"""Exporting a model as a package: a folder that runs without torch."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

from medseg.inference.backends import graph_cache
from medseg.inference.backends.network_source import graph_forms, submodule
from medseg.inference.backends.openvino import write_intermediate
from medseg.inference.model_file import ModelFile
from medseg.inference.model_files import find, shipped
from medseg.inference.model_package import FORMAT, PIPELINE, ModelPackage, is_own_package
from medseg.inference.package_self_test import check_package, write_self_test
from medseg.inference.segmenter import SLICES
from medseg.io.overwrite_guard import OverwriteGuard, foreign_file
from medseg.system.atomic_write import replacing_folder
from medseg.system.output_folder import make_output_folder
from medseg.system.own_version import own_version


def export_model(
    source: str | Path,
    output: str | Path,
    *,
    engine: str = "auto",
    openvino: bool = False,
    licence: str | None = None,
) -> ModelPackage:
    """Writes a model as a package, a folder that runs without torch, and returns it.

    The folder holds ``pipeline.json`` (recipe, labels, provenance and SHA-256 of each network), one ONNX file
    per network, and a synthetic scan with the mask that the model makes of it. If the model uses another
    model, that one is a package in a subfolder. The folder appears complete or not at all. ``medseg segment
    --model FOLDER`` uses it without torch.

    Args:
        source: A model file, or a name of ``medseg models``.
        output: Folder to write; an older package there is replaced.
        engine: Engine that makes the mask of the self-test.
        openvino: Also write each network in OpenVINO's format (IR: ``.xml`` and ``.bin``) for other programs.
        licence: Licence of the weights; None: the one in the model file, for shipped models Apache-2.0.

    Raises:
        UsageError: no such model, a network that cannot be exported (``engine``), or a folder with other
            files (``foreign-file``).
        ResourceError: the package ``onnx``, or ``openvino`` for its format, is not installed
            (``missing-extra``), or writing fails (``disk``).
        ModelRefused: the model file is damaged or does not fit, or the package gives another mask than the
            model (``self-test``).

    Example:
        >>> package = medseg.export_model("model.safetensors", "package")
        >>> sorted(file.name for file in package.path.iterdir())
        ['network-0.onnx', 'pipeline.json', 'self-test-0.nii.gz', 'self-test-mask.nii.gz']
    """
    file, output = ModelFile.read(source), Path(output)
    OverwriteGuard([file.path]).check(output)
    if os.path.lexists(output) and not is_own_package(output):
        raise foreign_file(output)
    make_output_folder(output.parent)
    with replacing_folder(output, remove=True) as part:
        _write(file, part, _Choices(engine, openvino, licence))
        check_package(part, engine=engine)
    return ModelPackage.read(output)


@dataclass(frozen=True)
class _Choices:
    engine: str
    openvino: bool
    licence: str | None


def _write(file: ModelFile, folder: Path, choices: _Choices) -> str:
    """Writes the package of a model file; returns the SHA-256 of its ``pipeline.json``."""
    from medseg.inference.backends.onnx_export import graph
    from medseg.inference.model import Model

    recipe, model = file.recipe, Model.of_file(file)
    graphs: list[dict[str, object]] = []
    intermediate: dict[str, str] = {}
    for weights, network in zip(file.fold_digests(), model.networks(), strict=True):
        for stage, shape, free in graph_forms(recipe):
            name = f"network-{len(graphs)}.onnx"
            content = graph(submodule(network, stage), shape, free=free)
            (folder / name).write_bytes(content)
            key = graph_cache.graph_key(recipe, weights, shape, free=free, stage=stage)
            found = {"file": name, "key": key, "sha256": hashlib.sha256(content).hexdigest()}
            graphs.append({**found, "stage": stage, "shape": list(shape), "free": free})
            if choices.openvino:
                intermediate |= write_intermediate(content, folder / f"{Path(name).stem}.xml")
    uses, includes = {}, {}
    if recipe.context is not None:
        slices = ModelFile.read(SLICES)
        (folder / SLICES).mkdir()
        uses[SLICES] = slices.digest
        includes[SLICES] = _write(slices, folder / SLICES, replace(choices, licence=None))
    tests = write_self_test(file.path, recipe, folder, engine=choices.engine)
    pipeline = {
        "format": FORMAT,
        "medseg": own_version(),
        "model": {"name": recipe.name, "sha256": file.digest, "provenance": dict(file.provenance)},
        "labels": {label.name: label.value for label in recipe.painted},
        "licence": choices.licence or _licence(file),
        "weights": list(file.fold_digests()),
        "graphs": graphs,
        "openvino": intermediate,
        "uses": uses,
        "includes": includes,
        "self_test": tests,
        "recipe": recipe.model_dump(mode="json"),
    }
    text = json.dumps(pipeline, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / PIPELINE).write_text(text, encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()


def _licence(file: ModelFile) -> str:
    ours = any(find(name) == file.path for name in shipped())
    return str(file.provenance.get("licence", "Apache-2.0" if ours else "unknown"))
