"""Exporting a model as a package: a folder that runs without torch."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

from medseg.errors import ResourceError, first_line
from medseg.inference.backends import graph_cache
from medseg.inference.backends.network_source import graph_forms, submodule
from medseg.inference.model_file import ModelFile
from medseg.inference.model_package import FORMAT, PIPELINE, ModelPackage, is_own_package
from medseg.inference.package_self_test import check_package, write_self_test
from medseg.inference.segmenter import SLICES
from medseg.io.overwrite_guard import OverwriteGuard, foreign_file
from medseg.system.output_folder import make_output_folder


def export_model(source: str | Path, output: str | Path, *, engine: str = "auto") -> ModelPackage:
    """The package of a model: a folder with its networks, its recipe, and a scan to test it with.

    Written are ``pipeline.json`` (recipe, labels, provenance and SHA-256 of each network), one ONNX file per
    network, and a synthetic scan with the mask that the model makes of it. The folder appears complete or
    not at all. ``medseg segment --model FOLDER`` uses it without torch.

    Args:
        source: A model file, or a name of ``medseg models``.
        output: Folder to write; an older package there is replaced.
        engine: Engine that makes the mask of the self-test.

    Raises:
        UsageError: no such model, a network that cannot be exported (``engine``), or a folder with other
            files (``foreign-file``).
        ResourceError: the package ``onnx`` is not installed (``missing-extra``), or writing fails (``disk``).
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
    part = Path(tempfile.mkdtemp(prefix=".medseg-", dir=output.parent))
    try:
        _write(file, part, engine)
        check_package(part, engine=engine)
        if output.is_dir():
            shutil.rmtree(output)
        part.chmod(0o755)
        part.rename(output)
    except OSError as error:
        raise ResourceError(
            f"cannot be written: {first_line(error)}",
            where=output,
            remedy="check permissions and free space there",
            reason="disk",
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return ModelPackage.read(output)


def _write(file: ModelFile, folder: Path, engine: str) -> None:
    from medseg.inference.backends.onnx_export import graph
    from medseg.inference.model import Model

    recipe, model = file.recipe, Model.of_file(file)
    graphs: list[dict[str, object]] = []
    for weights, network in zip(file.fold_digests(), model.networks(), strict=True):
        for stage, shape, free in graph_forms(recipe):
            name = f"network-{len(graphs)}.onnx"
            content = graph(submodule(network, stage), shape, free=free)
            (folder / name).write_bytes(content)
            key = graph_cache.graph_key(recipe, weights, shape, free=free, stage=stage)
            found = {"file": name, "key": key, "sha256": hashlib.sha256(content).hexdigest()}
            graphs.append({**found, "stage": stage, "shape": list(shape), "free": free})
    tests = write_self_test(file.path, recipe, folder, engine=engine)
    pipeline = {
        "format": FORMAT,
        "medseg": version("medseg"),
        "model": {"name": recipe.name, "sha256": file.digest, "provenance": dict(file.provenance)},
        "labels": {label.name: label.value for label in recipe.painted},
        "licence": file.provenance.get("licence", "unknown"),
        "weights": list(file.fold_digests()),
        "graphs": graphs,
        "uses": {SLICES: ModelFile.read(SLICES).digest} if recipe.context is not None else {},
        "self_test": tests,
        "recipe": recipe.model_dump(mode="json"),
    }
    text = json.dumps(pipeline, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / PIPELINE).write_text(text + "\n", encoding="utf-8")
