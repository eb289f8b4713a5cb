"""medseg-runtime: the dependencies and code of medseg without torch and models, and a guide that is true."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from support.bundles import bundle
from support.processes import command_code, heavy_imports

import medseg
from medseg import cli
from medseg.inference import model_files
from medseg.io import write_dicom_series
from medseg.phantom.thorax import Thorax, default_grid
from medseg.system import own_version

REPO = Path(__file__).parents[1]
GUIDE = (REPO / "docs" / "guides" / "laptop.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", GUIDE, re.DOTALL)
PROJECT, RUNTIME = (
    tomllib.loads((folder / "pyproject.toml").read_text())["project"] for folder in (REPO, REPO / "runtime")
)


def test_its_version_and_dependencies_are_those_of_medseg():
    assert RUNTIME["version"] == PROJECT["version"]
    assert RUNTIME["scripts"] == PROJECT["scripts"]
    extras = [each for group in PROJECT["optional-dependencies"].values() for each in group]
    known = {*PROJECT["dependencies"], *extras}
    more = [each for group in RUNTIME["optional-dependencies"].values() for each in group]
    wanted = {*RUNTIME["dependencies"], *more}
    assert wanted <= known
    assert not [each for each in wanted if each.startswith(("torch", "monai", "lightning"))]


@pytest.fixture
def hook(monkeypatch):
    """The build hook, with a stand-in for hatchling's base class."""
    interface = ModuleType("hatchling.builders.hooks.plugin.interface")
    interface.BuildHookInterface = object
    parts = interface.__name__.split(".")
    for number in range(1, len(parts)):
        name = ".".join(parts[:number])
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    return runpy.run_path(str(REPO / "runtime" / "hatch_build.py"))["MedsegCode"]


def test_the_wheel_has_all_code_and_no_models(hook):
    data = {"force_include": {}}
    hook.initialize(SimpleNamespace(root=REPO / "runtime"), "standard", data)
    places = set(data["force_include"].values())
    ours = {f"medseg/{each.name}" for each in (REPO / "medseg").iterdir() if each.name != "__pycache__"}
    assert places == ours - {"medseg/models"} | {"medseg/LICENSE"}
    assert all(Path(source).exists() for source in data["force_include"])


def test_a_source_distribution_is_built_from_itself(hook, tmp_path):
    (tmp_path / "medseg" / "models").mkdir(parents=True)
    for name in ("__init__.py", "LICENSE"):
        (tmp_path / "medseg" / name).touch()
    data = {"force_include": {}}
    hook.initialize(SimpleNamespace(root=tmp_path), "standard", data)
    assert set(data["force_include"].values()) == {"medseg/__init__.py", "medseg/LICENSE"}
    assert all(Path(source).exists() for source in data["force_include"])


def test_without_models_the_way_to_one_is_named(monkeypatch):
    monkeypatch.setattr(model_files, "shipped", lambda: ())
    with pytest.raises(medseg.UsageError, match="medseg-runtime comes without models") as refused:
        model_files.find("lung_ct_context")
    assert "medseg export MODEL" in refused.value.remedy


def test_the_version_is_that_of_whichever_is_installed(monkeypatch):
    installed = {"medseg-runtime": "0.1.0"}

    def version(name):
        if name not in installed:
            raise own_version.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(own_version, "version", version)
    assert own_version.own_version() == "0.1.0"
    installed["medseg"] = "0.2.0"
    assert own_version.own_version() == "0.2.0"


@pytest.fixture
def desk(tmp_path, monkeypatch) -> Path:
    """A folder with the scans that the guide names."""
    grid = default_grid((5.0, 5.0, 5.0), "LPS")
    Thorax().scan(grid).save(tmp_path / "chest.nii.gz")
    (tmp_path / "dicom_folder").mkdir()
    write_dicom_series(Thorax().scan(grid), tmp_path / "dicom_folder")
    medseg.import_model(bundle(tmp_path), output=tmp_path / "organs.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_every_command_and_example_of_the_guide_runs(desk, monkeypatch, capsys):
    commands = [line for kind, text in BLOCKS if not kind for line in text.splitlines()]
    ours = [line for line in commands if line.startswith("medseg ")]
    assert {line.split()[1] for line in ours} >= {"export", "segment", "info"}
    for command in ours:
        quick = command.replace("export lung_ct ", "export phantom_lungs ")  # a smaller network
        monkeypatch.setattr(sys, "argv", shlex.split(quick))
        with pytest.raises(SystemExit) as stopped:
            cli.run_command()
        assert not stopped.value.code, (command, capsys.readouterr().err)
    by_command = Path("lungs.nii.gz").read_bytes()
    shutil.move("lungs.nii.gz", "by_command.nii.gz")
    for kind, text in BLOCKS:
        if kind == "python":
            exec(compile(text, "laptop.md", "exec"), {})
    assert Path("lungs.nii.gz").read_bytes() == by_command
    code = command_code("segment", "chest.nii.gz", "--model", "package", "-o", "again.nii.gz")
    assert not {"torch", "monai", "PIL", "SimpleITK", "pandas"} & set(heavy_imports(code, cwd=desk))


def test_the_other_commands_of_the_guide_are_those_of_pip():
    commands = [line for kind, text in BLOCKS if not kind for line in text.splitlines()]
    others = [line for line in commands if not line.startswith("medseg ")]
    # The last is run by tests/inference/test_bundle_export.py.
    run = "python -m monai.bundle run --config_file configs/inference.json"
    assert others == ["python3 -m venv laptop", "laptop/bin/pip install ./runtime", "cd bundle", run]
    extras = re.findall(r"^\| `(\w+)` \|", GUIDE, re.MULTILINE)
    assert extras == sorted(RUNTIME["optional-dependencies"])
