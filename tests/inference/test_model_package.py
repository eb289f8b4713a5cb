from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.packages import refusal
from support.processes import command_code, heavy_imports
from support.worlds import tiny, untrained

import medseg
from medseg.errors import ModelRefused, ResourceError, UsageError
from medseg.inference import backends
from medseg.inference.model_package import PIPELINE, ModelPackage
from medseg.inference.segmenter import Segmenter
from medseg.phantom.thorax import Thorax, default_grid


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    model = untrained(tiny()).save(folder / "model.safetensors")
    return medseg.export_model(model, folder / "package").path


@pytest.fixture
def package(exported, tmp_path) -> Path:
    return shutil.copytree(exported, tmp_path / "package")


@pytest.mark.parametrize("engine", ["openvino", "onnx"])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_package_gives_the_probabilities_and_mask_of_its_model(tmp_path, dims, engine):
    recipe = tiny(dims)
    model = untrained(recipe, folds=2).save(tmp_path / "model.safetensors")
    medseg.export_model(model, tmp_path / "package")
    scan = Thorax().scan(default_grid((8.0, 8.0, 10.0)))
    ours, theirs = (
        Segmenter(each, engine=engine).prepare(scan).predict(probabilities=True)
        for each in (tmp_path / "package", model)
    )
    assert ours.mask.grid == theirs.mask.grid
    assert np.array_equal(ours.mask.array, theirs.mask.array)
    for name, values in theirs.probabilities.items():
        assert np.array_equal(ours.probabilities[name], values)


def test_a_package_is_used_without_torch(package):
    Thorax().scan(default_grid((8.0, 8.0, 10.0))).save(package.parent / "scan.nii.gz")
    code = command_code("segment", "scan.nii.gz", "--model", "package", "-o", "mask.nii.gz")
    assert not {"torch", "monai", "lightning"} & set(heavy_imports(code, cwd=package.parent))
    assert (package.parent / "mask.nii.gz").is_file()


def test_the_digest_is_that_of_a_file_that_names_each_network(package):
    read = ModelPackage.read(package)
    assert read.digest == hashlib.sha256((package / PIPELINE).read_bytes()).hexdigest()
    content = json.loads((package / PIPELINE).read_text())
    for graph in content["graphs"]:
        assert hashlib.sha256((package / graph["file"]).read_bytes()).hexdigest() == graph["sha256"]
    assert Segmenter(package).digest == read.digest


def test_a_network_that_was_changed_is_refused(package):
    network = package / "network-0.onnx"
    content = bytearray(network.read_bytes())
    content[len(content) // 2] ^= 1
    network.write_bytes(content)
    error = refusal(ModelRefused, "model-damaged", Segmenter, package)
    assert "network-0.onnx" in str(error)
    network.unlink()
    refusal(ModelRefused, "model-damaged", Segmenter, package)


def _edited(package: Path, edit) -> Path:
    content = json.loads((package / PIPELINE).read_text())
    edit(content)
    (package / PIPELINE).write_text(json.dumps(content))
    return package


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda content: content.update(format="medseg-package-9"), "model-format"),
        (lambda content: content.pop("graphs"), "model-damaged"),
        (lambda content: content["graphs"][0].update(file="../model.safetensors"), "model-damaged"),
        (lambda content: content["graphs"][0].update(file="/etc/hostname"), "model-damaged"),
        (lambda content: content.update(graphs=7), "model-damaged"),
        (lambda content: content.update(uses=[]), "model-damaged"),
        (lambda content: content["recipe"].update(unknown=1), "model-recipe"),
        # The network of another recipe: its key no longer fits.
        (lambda content: content["recipe"]["network"].update(norm="batch"), "model-damaged"),
    ],
)
def test_an_edited_pipeline_is_refused(package, edit, reason):
    refusal(ModelRefused, reason, Segmenter, _edited(package, edit))


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff\xfe", b"null", b'{"format": "medseg-package-1"}'])
def test_what_is_no_pipeline_is_refused(package, text):
    (package / PIPELINE).write_bytes(text)
    refusal(ModelRefused, "model-damaged", ModelPackage.read, package)


def test_a_folder_without_a_pipeline_is_no_model(tmp_path):
    refusal(ModelRefused, "model-kind", Segmenter, tmp_path)


def test_torch_and_gpus_do_not_run_a_package(package):
    error = refusal(UsageError, "engine", Segmenter, package, engine="torch")
    assert "not weights for torch" in str(error)
    for name in ("auto", "onnx"):
        error = refusal(UsageError, "engine", backends.choose, name, "cuda:0", packaged=True)
        assert error.remedy == "use the device cpu"


def test_auto_takes_onnx_runtime_without_openvino(package, monkeypatch):
    monkeypatch.setattr(backends, "_installed", lambda name: name != "openvino")
    assert Segmenter(package).engine.startswith("onnxruntime")
    monkeypatch.setattr(backends, "_installed", lambda name: False)
    error = refusal(ResourceError, "missing-extra", Segmenter, package)
    assert "medseg[onnx]" in error.remedy
    assert "auto" not in error.remedy
