from __future__ import annotations

import json
from importlib.metadata import version
from types import SimpleNamespace

import jsonschema
import numpy as np
import openvino
import pytest
from support.commands import invoke
from support.contexts import CONTEXT
from support.foreign_models import lungmask_weights
from support.packages import refusal
from support.worlds import DIVIDED, tiny, untrained

import medseg
from medseg.errors import ModelRefused, UsageError
from medseg.inference import model_file, package_export, segmenter
from medseg.inference.backends.openvino import OpenVino
from medseg.inference.model_package import PIPELINE


@pytest.fixture
def model(tmp_path):
    return untrained(tiny(**DIVIDED), folds=2).save(tmp_path / "model.safetensors")


@pytest.fixture
def context_package(tmp_path, monkeypatch):
    """The package of a model with a section ``context``, which uses phantom_lungs in place of lung_ct."""
    for module in (segmenter, package_export):
        monkeypatch.setattr(module, "SLICES", "phantom_lungs")
    model = untrained(tiny(**CONTEXT)).save(tmp_path / "context.safetensors")
    return medseg.export_model(model, tmp_path / "context", engine="onnx").path


def test_the_pipeline_says_all_that_decides_a_mask(model, tmp_path):
    medseg.export_model(model, tmp_path / "package")
    content = json.loads((tmp_path / "package" / PIPELINE).read_text())
    assert content["labels"] == {"right_lung": 1, "left_lung": 2}
    assert content["medseg"] == version("medseg")
    assert content["model"]["sha256"] == medseg.load_model(model).digest
    assert medseg.Recipe.checked(content["recipe"]) == medseg.load_model(model).recipe
    assert [graph["file"] for graph in content["graphs"]] == ["network-0.onnx", "network-1.onnx"]
    names = {file.name for file in (tmp_path / "package").iterdir()}
    assert names == {*(g["file"] for g in content["graphs"]), *content["self_test"], PIPELINE}
    assert (tmp_path / "package").stat().st_mode & 0o777 == 0o755


def test_openvino_files_are_the_networks_that_medseg_runs(model, tmp_path):
    package = medseg.export_model(model, tmp_path / "package", openvino=True, licence="CC BY 4.0")
    content = json.loads((package.path / PIPELINE).read_text())
    assert content["licence"] == "CC BY 4.0"
    assert [*content["openvino"]] == ["network-0.xml", "network-0.bin", "network-1.xml", "network-1.bin"]
    shape = tuple(content["graphs"][0]["shape"])
    windows = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    graph = (package.path / "network-0.onnx").read_bytes()
    ours = OpenVino(SimpleNamespace(graph=lambda *_, **__: graph), shape, "cpu")(windows)
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    theirs = openvino.Core().compile_model(package.path / "network-0.xml", "CPU", settings)(windows)[0]
    assert np.array_equal(ours, theirs)
    assert medseg.check_package(package.path).differing_voxels == 0
    assert medseg.export_model(model, package.path).path == package.path  # it may be replaced
    assert not [*package.path.glob("*.xml")]


def test_changed_openvino_files_are_found(model, tmp_path):
    package = medseg.export_model(model, tmp_path / "package", openvino=True).path
    (package / "network-1.bin").write_bytes(b"")
    assert "network-1.bin" in str(refusal(ModelRefused, "model-damaged", medseg.check_package, package))


def test_the_pipeline_follows_its_schema(model, tmp_path):
    package = medseg.export_model(model, tmp_path / "package", openvino=True)
    content = json.loads((package.path / PIPELINE).read_text())
    validator = jsonschema.Draft202012Validator(medseg.package_schema())
    validator.validate(content)
    for key in ("licence", "graphs", "recipe", "self_test"):
        assert not validator.is_valid({name: each for name, each in content.items() if name != key})
    assert not validator.is_valid({**content, "format": "medseg-package-2"})
    assert not validator.is_valid({**content, "recipe": {**content["recipe"], "modality": "XA"}})


def test_a_shipped_model_has_the_licence_of_medseg(tmp_path):
    package = medseg.export_model("phantom_lungs", tmp_path / "package")
    assert json.loads((package.path / PIPELINE).read_text())["licence"] == "Apache-2.0"


def test_another_model_that_is_used_is_in_the_package(context_package, tmp_path, monkeypatch):
    package = medseg.ModelPackage.read(context_package)
    names = {each.relative_to(context_package).as_posix() for each in context_package.rglob("*.*")}
    assert {"phantom_lungs/pipeline.json", "phantom_lungs/network-0.onnx"} < names
    assert names == package.file_names()
    monkeypatch.setattr(model_file, "find", lambda name: 1 / 0)  # no model file is read
    assert medseg.check_package(context_package, engine="onnx").passed
    (context_package / "phantom_lungs" / PIPELINE).write_text("{}")
    refusal(ModelRefused, "model-damaged", medseg.Segmenter, context_package)


def test_other_files_are_kept_and_an_older_package_is_replaced(model, tmp_path):
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    refusal(UsageError, "foreign-file", medseg.export_model, model, folder)
    refusal(UsageError, "overwrites-input", medseg.export_model, model, model)
    refusal(UsageError, "foreign-file", medseg.export_model, model, folder / "notes.txt")
    assert (folder / "notes.txt").read_text() == "mine"
    (folder / "notes.txt").unlink()
    first = medseg.export_model(model, folder).digest  # the empty folder
    assert medseg.export_model(model, folder).digest == first


def test_a_package_with_a_file_of_the_user_is_not_replaced(model, tmp_path):
    folder = medseg.export_model(model, tmp_path / "package").path
    (folder / "README.txt").write_text("mine")
    refusal(UsageError, "foreign-file", medseg.export_model, model, folder)
    assert (folder / "README.txt").read_text() == "mine"


def test_a_failed_export_leaves_nothing(model, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(package_export, "write_self_test", fails)
    with pytest.raises(medseg.ResourceError, match="No space left"):
        medseg.export_model(model, tmp_path / "package")
    assert [each.name for each in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.filterwarnings("ignore::medseg.InputWarning")  # the scan of the test is no chest
def test_a_package_holds_all_networks_of_a_model_with_several(tmp_path):
    model, fill = tmp_path / "fused.safetensors", lungmask_weights(tmp_path / "fill.pth")
    medseg.import_model(lungmask_weights(tmp_path / "lobes.pth", 6), fill=fill, output=model)
    package = medseg.export_model(model, tmp_path / "package")
    assert len(list(package.path.glob("network-*.onnx"))) == 2
    scan = medseg.read(package.path / "self-test-0.nii.gz")
    masks = [medseg.segment(scan, model=each, engine="onnx").array for each in (model, package.path)]
    assert np.array_equal(*masks)


def test_the_self_test_finds_another_mask(model, tmp_path):
    folder = medseg.export_model(model, tmp_path / "package").path
    assert medseg.check_package(folder).differing_voxels == 0
    content = json.loads((folder / PIPELINE).read_text())
    right, left = content["recipe"]["postprocess"]["divide"]
    right["values"], left["values"] = left["values"], right["values"]  # exchanged sides
    (folder / PIPELINE).write_text(json.dumps(content))
    error = refusal(ModelRefused, "self-test", medseg.check_package, folder)
    assert "differs in" in str(error)
    (folder / "self-test-0.nii.gz").write_bytes(b"")
    refusal(ModelRefused, "model-damaged", medseg.check_package, folder)


def test_from_the_command_line(model, tmp_path):
    _, err = invoke("export", model, "-o", tmp_path / "package")
    assert f"Next: medseg segment SCAN -o mask.nii.gz --model {tmp_path / 'package'}" in err
    _, err = invoke("export", "threshold", "-o", tmp_path / "none", code=2)
    assert "it has no network and no weights" in err
    out, _ = invoke("export", "--check", tmp_path / "package")
    assert "0 of" in out
    out, _ = invoke("export", "--schema")
    assert json.loads(out) == medseg.package_schema()
    for arguments in ((), (model,), (model, "--check", "-o", tmp_path / "x")):
        _, err = invoke("export", *arguments, code=2)
        assert "need a model and either -o or --check" in err
