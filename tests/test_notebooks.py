"""What a notebook shows of errors and progress, and whether the shipped notebooks find the user's data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from support.processes import PATIENCE
from support.worlds import phantoms

import medseg

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"

ERRORS = """
import medseg
def load(path):
    return medseg.read(path)

try:
    1 / 0
except ZeroDivisionError:
    load("missing.nii.gz")
"""
WHOLE = """
import sys, traceback
traceback.print_exception(sys.last_value)
"""
CHECK = """
grid = medseg.phantom_grid((20.0, 20.0, 20.0))
for name in "ab":
    medseg.Thorax().scan(grid).save(f"{name}.nii.gz")
checked = medseg.check([medseg.Case(id=name, images=(f"{name}.nii.gz",)) for name in "ab"])
"""
# As where ipywidgets is not installed.
WITHOUT_WIDGETS = """
from medseg.system import progress
progress.find_spec = lambda name: None
""" + CHECK.replace("medseg.check", "twice = medseg.check")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """The cells' outputs and the state of the widgets, of one notebook."""
    book = nbformat.v4.new_notebook()
    book.cells = [nbformat.v4.new_code_cell(each) for each in (ERRORS, WHOLE, CHECK, WITHOUT_WIDGETS)]
    place = tmp_path_factory.mktemp("notebook")
    NotebookClient(
        book, allow_errors=True, timeout=PATIENCE, resources={"metadata": {"path": str(place)}}
    ).execute()
    return [cell.outputs for cell in book.cells], json.dumps(book.metadata.get("widgets"))


def test_an_error_is_its_message_and_the_line_that_called(outputs):
    (cell, *_), _ = outputs
    (error,) = cell
    assert error["output_type"] == "error"
    assert "\n".join(error["traceback"]).splitlines() == [
        "InputRefused: missing.nii.gz:",
        "no such file or folder",
        "→ check the path",
        "caused by FileNotFoundError: No such file or directory",
        "in line 3 of <cell>: return medseg.read(path)",
    ]


def test_the_next_cell_prints_the_whole_traceback(outputs):
    (_, (shown, *_), *_), _ = outputs
    assert "Traceback (most recent call last)" in shown["text"]
    assert shown["text"].rstrip().endswith("→ check the path")


def test_a_long_call_shows_its_progress(outputs):
    (_, _, with_widgets, without), widgets = outputs
    assert [each["output_type"] for each in with_widgets + without].count("error") == 0
    assert "checking" in widgets
    assert [each["data"]["text/plain"] for each in without if "data" in each] == ["checking 2/2"]


def test_a_script_without_a_terminal_is_not_flooded(tmp_path):
    code = "import medseg\n" + CHECK
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert done.stdout == ""
    assert "checking" not in done.stderr
    assert len(done.stderr.splitlines()) < 5


def first_cell(name: str) -> str:
    cells = json.loads((NOTEBOOKS / name).read_text(encoding="utf-8"))["cells"]
    return "".join(next(cell for cell in cells if cell["cell_type"] == "code")["source"])


def run_first_cell(name: str, place: Path, monkeypatch) -> dict:
    """What the first cell of a notebook defines if it runs in a folder beside the folder ``data``."""
    (place / "notebooks").mkdir()
    monkeypatch.chdir(place / "notebooks")
    names: dict = {}
    exec(compile(first_cell(name), name, "exec"), names)
    return names


def test_the_first_notebook_reads_the_users_series(tmp_path, monkeypatch):
    grid = medseg.phantom_grid((20.0, 20.0, 20.0))
    (tmp_path / "data").mkdir()
    medseg.write_dicom_series(medseg.Thorax().scan(grid), tmp_path / "data/chest_ct")
    found = run_first_cell("01_segment_a_lung_ct.ipynb", tmp_path, monkeypatch)
    assert found["patient"] is None
    assert medseg.read(found["series"]).grid.shape == grid.shape


@pytest.mark.parametrize("name", ["02_train_a_unet.ipynb", "04_evaluate_and_report.ipynb"])
def test_the_users_cases_are_found(tmp_path, monkeypatch, name):
    (tmp_path / "data").mkdir()
    (tmp_path / "made").mkdir()
    made = phantoms(tmp_path / "made", "train", "val")
    rows = [f"mine_{n},{case.images[0]},{case.label},{case.split}" for n, case in enumerate(made)]
    (tmp_path / "data/cases.csv").write_text("\n".join(["id,image,label,split", *rows]) + "\n")
    found = run_first_cell(name, tmp_path, monkeypatch)
    assert [case.id for case in found["manifest"].cases] == ["mine_0", "mine_1"]


def test_the_users_folder_of_scans_is_found(tmp_path, monkeypatch):
    scans = tmp_path / "data/P01/2024-03-01"
    scans.mkdir(parents=True)
    scan = medseg.Thorax().scan(medseg.phantom_grid((20.0, 20.0, 20.0)))
    scan.save(scans / "chest.nii.gz")
    (tmp_path / "data/clinic.csv").write_text("patient,group\nP01,a\n")
    found = run_first_cell("03_batch_and_statistics.ipynb", tmp_path, monkeypatch)
    assert found["is_own"]
    assert found["scans"] == tmp_path / "data"
    assert found["clinic_file"].is_file()
    assert found["MODEL"] is None
    assert np.array_equal(medseg.read(scans / "chest.nii.gz").array, scan.array)
