"""The README is true: its commands and its Python run as written, and its files exist."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from medseg import cli
from medseg.inference.model_files import find
from medseg.io import write_dicom_series
from medseg.phantom.thorax import Thorax, default_grid

REPO = Path(__file__).parents[1]
README = (REPO / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.split("#")[0].strip() for kind, text in BLOCKS if not kind for line in text.splitlines()]


@pytest.fixture
def desk(tmp_path, monkeypatch) -> Path:
    """A folder that holds what the README's commands name, with the phantom's model in place of a user's."""
    # In thicker voxels a phantom is unlike a chest for the 3D networks, with a notice.
    grid = default_grid((3.0, 3.0, 4.0), "LPS")
    Thorax().scan(grid).save(tmp_path / "chest.nii.gz")
    (tmp_path / "dicom_folder").mkdir()
    write_dicom_series(Thorax().scan(grid), tmp_path / "dicom_folder")
    (tmp_path / "runs" / "lungs").mkdir(parents=True)
    shutil.copy(find("phantom_lungs"), tmp_path / "runs" / "lungs" / "model.safetensors")
    (tmp_path / "scans").mkdir()
    Thorax().scan(grid).save(tmp_path / "scans" / "chest.nii.gz")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_every_command_runs(desk, monkeypatch, capsys):
    ours = [command for command in COMMANDS if command.startswith("medseg ")]
    names = {"segment", "batch", "report", "preview", "info", "convert"}
    names |= {"phantom", "check", "augment", "train", "evaluate"}
    assert {command.split()[1] for command in ours} >= names
    for command in ours:
        # The same command with less patience: one epoch of training, and fewer patients.
        quick = command.replace("--max-time 20m", "--max-time 1s").replace("--cases 10", "--cases 5")
        monkeypatch.setattr(sys, "argv", shlex.split(quick))
        with pytest.raises(SystemExit) as stopped:
            cli.run_command()
        assert not stopped.value.code, (command, capsys.readouterr().err)
    assert (desk / "lungs.json").is_file()
    assert (desk / "scan.nii.gz").is_file()
    assert (desk / "segmented" / "masks" / "chest.nii.gz").is_file()
    assert (desk / "runs" / "phantom" / "history.png").is_file()
    assert (desk / "runs" / "phantom" / "val" / "summary.csv").is_file()


def test_the_python_examples_run(desk):
    for kind, text in BLOCKS:
        if kind == "python":
            exec(compile(text, "README.md", "exec"), {})
    assert (desk / "lungs.nii.gz").is_file()


def test_make_targets_exist():
    makefile = (REPO / "Makefile").read_text(encoding="utf-8")
    targets = [command.split()[1] for command in COMMANDS if command.startswith("make ")]
    assert {"demo", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


@pytest.mark.parametrize("file", ["README.md", "CONTRIBUTING.md", "docs/design.md", "docs/results.md"])
def test_links_lead_somewhere(file):
    text = (REPO / file).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        if not link.startswith("http"):
            assert ((REPO / file).parent / link).exists(), link
