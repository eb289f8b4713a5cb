"""What a user types first must answer at once: heavy packages are imported only where they are used."""

import tomllib
from pathlib import Path

import nibabel
import pytest
from support.foreign_models import lungmask_weights, training_folder
from support.processes import command_code, heavy_imports

import medseg
from medseg import Grid
from medseg.inference.backends import graph_cache
from medseg.inference.backends.network_source import graph_forms
from medseg.inference.model_file import ModelFile
from medseg.inference.registry import DEFAULT
from medseg.phantom.thorax import Thorax, default_grid


def test_the_check_itself_detects_a_heavy_import(tmp_path: Path):
    assert "matplotlib" in heavy_imports("import matplotlib", cwd=tmp_path)


def test_importing_medseg_is_light(tmp_path: Path):
    assert heavy_imports("import medseg", cwd=tmp_path) == []


@pytest.mark.parametrize("name", [(), ("segment",), ("train",), ("evaluate",), ("demo",)])
def test_help_is_light(name: tuple[str, ...], tmp_path: Path):
    assert heavy_imports(command_code(*name, "--help"), cwd=tmp_path) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("segment", "nowhere.nii.gz", "-o", "mask.nii.gz"),
        ("segment", ".", "-o", "mask.doc"),
        ("segment", ".", "-o", "nowhere/mask.nii.gz"),
        ("segment", ".", "-o", "mask.nii.gz", "--model", "nowhere"),
        ("convert", "nowhere", "-o", "scan.nii.gz"),
        ("preview", "nowhere", "nowhere", "-o", "picture.png"),
        ("info", "nowhere"),
        ("batch", "nowhere", "-o", "masks"),
        ("batch", ".", "-o", "masks", "--model", "nowhere"),
        ("evaluate", "cases.csv", "-o", "scores", "--model", "nowhere"),
    ],
    ids=" ".join,
)
def test_wrong_arguments_are_refused_before_numpy_is_imported(arguments: tuple[str, ...], tmp_path: Path):
    code = """
import medseg.cli
try:
    medseg.cli.main()
except SystemExit as end:
    assert end.code in (2, 3), end.code
assert "numpy" not in sys.modules
"""
    assert heavy_imports(f"sys.argv = {['medseg', *arguments]!r}" + code, cwd=tmp_path) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("nowhere.yaml", "cases.csv"),
        ("lung_ct", "nowhere.csv"),
        ("lung_ct", "cases.csv", "--from", "nowhere"),
        ("lung_ct", "cases.csv", "--rerun", "run"),
    ],
    ids=" ".join,
)
def test_wrong_arguments_of_train_are_refused_without_torch(arguments: tuple[str, ...], tmp_path: Path):
    (tmp_path / "cases.csv").write_text("id,image,label,split\na,ct.nii.gz,truth.nii.gz,train\n")
    code = f"""
sys.argv = {["medseg", "train", *arguments, "-o", "run"]!r}
import medseg.cli
try:
    medseg.cli.main()
except SystemExit as end:
    assert end.code == 2, end.code
"""
    assert heavy_imports(code, cwd=tmp_path) == []


def test_info_is_light(tmp_path: Path):
    Thorax().scan(default_grid((16, 16, 24))).save(tmp_path / "ct.nii.gz")
    assert heavy_imports(command_code("info", "ct.nii.gz", "--json"), cwd=tmp_path) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("models",),
        ("segment", "ct.nii.gz", "-o", "mask.nii.gz"),
        ("segment", "ct.nii.gz", "-o", "mask.nii.gz", "--engine", "onnx", "--json"),
        ("segment", "ct.nii.gz", "-o", "mask.nii.gz", "--model", "lung_ct"),
        ("evaluate", "cases.csv", "-o", "scores", "--model", "lung_ct"),
        ("batch", "scans", "-o", "masks", "--workers", "1"),
        ("preview", "ct.nii.gz", "truth.nii.gz", "-o", "picture.png"),
    ],
    ids=" ".join,
)
def test_a_model_with_an_exported_graph_is_used_without_torch(arguments: tuple[str, ...], tmp_path: Path):
    grid = default_grid((8.0, 8.0, 10.0))
    images = {"ct.nii.gz": Thorax().scan(grid), "truth.nii.gz": Thorax().truth(grid)}
    (tmp_path / "scans").mkdir()
    for name, image in images.items():
        whole = nibabel.load(image.save(tmp_path / "scans" / name))
        # Six slices through the middle of the lungs: every network is run, on little.
        whole.slicer[:, :, 14:20].to_filename(tmp_path / name)
    (tmp_path / "scans" / "truth.nii.gz").unlink()
    (tmp_path / "scans" / "ct.nii.gz").write_bytes((tmp_path / "ct.nii.gz").read_bytes())
    (tmp_path / "cases.csv").write_text("id,image,label,split\na,ct.nii.gz,truth.nii.gz,test\n")
    # pydicom is for DICOM only, and nibabel would import it for every NIfTI file.
    unneeded = ("torch", "monai", "lightning", *(("pydicom",) if arguments[0] == "segment" else ()))
    assert heavy_imports(command_code(*arguments), cwd=tmp_path, among=unneeded) == []


@pytest.mark.parametrize("source", ["nnunet", "lungmask"])
def test_an_imported_model_is_used_without_torch(source: str, tmp_path: Path):
    model, scan = tmp_path / "model.safetensors", tmp_path / "ct.nii.gz"
    grid = default_grid((16, 16, 24))
    if source == "nnunet":
        grid = Grid.from_spacing((5, 5, 4), (16, 16, 24))  # of windows of 1 mm, a whole chest has thousands
        medseg.import_model(training_folder(tmp_path, folds=2), output=model)
    else:
        fill = lungmask_weights(tmp_path / "fill.pth")
        medseg.import_model(lungmask_weights(tmp_path / "lobes.pth", 6), fill=fill, output=model)
    Thorax().scan(grid).save(scan)
    code = command_code("segment", str(scan), "-o", "mask.nii.gz", "--model", str(model))
    assert not {"torch", "monai", "lightning"} & set(heavy_imports(code, cwd=tmp_path))


def test_a_worker_of_a_batch_needs_no_torch(tmp_path: Path):
    code = """
import medseg.batch_processing.worker
from medseg.batch_processing.case_pipeline import CasePipeline
from medseg.inference.registry import load_segmenter
load_segmenter()
"""
    assert not {"torch", "monai", "lightning"} & set(heavy_imports(code, cwd=tmp_path))


@pytest.mark.parametrize("name", ["lung_ct", "lung_ct_context", DEFAULT])
def test_models_of_lungs_are_shipped_with_their_graphs(name: str):
    file = ModelFile.read(name)
    for weights in file.fold_digests():
        for stage, shape, free in graph_forms(file.recipe):
            key = graph_cache.graph_key(file.recipe, weights, shape, free=free, stage=stage)
            path = graph_cache.shipped_folder() / f"{key}.onnx"
            assert path.is_file(), f"the weights of {name} have changed: run `make graphs`"


def test_reading_writing_and_comparing_are_light(tmp_path: Path):
    code = """
import medseg
from medseg.evaluation.scoring import score
import medseg
from medseg.inference.backends import graph_cache
from medseg.inference.backends.network_source import window_shape
from medseg.inference.model_file import ModelFile
from medseg.inference.registry import DEFAULT
from medseg.phantom.thorax import Thorax, default_grid
grid = default_grid((16, 16, 24))
truth = Thorax().truth(grid)
medseg.write(Thorax().scan(grid), "ct.nii.gz")
medseg.write(truth, "truth.nii.gz")
medseg.read("ct.nii.gz")
score(medseg.read_mask("truth.nii.gz", truth.labels), truth)
"""
    assert heavy_imports(code, cwd=tmp_path) == []


def test_the_requirements_of_the_runtime_are_those_of_the_project():
    root = Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    known = {*project["dependencies"], *project["optional-dependencies"]["onnx"], "pillow>=10"}
    lines = [line for line in (root / "requirements-runtime.txt").read_text().splitlines() if line[0] != "#"]
    assert set(lines) <= known
    assert not [line for line in lines if line.startswith(("torch", "monai", "lightning"))]
