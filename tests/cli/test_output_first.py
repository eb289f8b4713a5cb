"""An output that cannot be written is told before any input is read and before torch is imported."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from support.processes import environment

from medseg.cli.app import COMMANDS

SILENT = {
    "check": "prints only",
    "info": "prints only",
    "models": "prints only",
    "recipe": "prints only",
    "view": "shows only",
}
# Every input is a file of nonsense: whoever reads it says so.
WRITING = {
    "segment": "scan.nii.gz -o {out}/m.nii.gz --model model.safetensors",
    "segment FOLDER": "scan.nii.gz b.nii.gz -o {out}/x/ --model model.safetensors",
    "segment --stats": "scan.nii.gz -o m.nii.gz --model model.safetensors --stats {out}/s.json",
    "segment --per-label": "scan.nii.gz -o m.nii.gz --model model.safetensors --per-label {out}/x",
    "batch": "cases.csv -o {out}/x --model model.safetensors",
    "job": "series {out}/x",
    "manifest": "cases.csv -o {out}/m.csv",
    "plan": "cases.csv -o {out}/r.yaml",
    "train": "recipe.yaml cases.csv -o {out}/x",
    "train --folds": "recipe.yaml cases.csv -o {out}/x --folds 2",
    "tune": "cases.csv --recipe recipe.yaml -o {out}/x",
    "evaluate": "cases.csv --model model.safetensors -o {out}/x",
    "evaluate --masks": "cases.csv --masks series --recipe recipe.yaml -o {out}/x",
    "compare": "a.csv b.csv -o {out}/x",
    "measure": "scan.nii.gz mask.nii.gz -o {out}/m.csv",
    "measure --methods": "scan.nii.gz mask.nii.gz -o m.csv --methods {out}/m.md",
    "measure --picture": "scan.nii.gz mask.nii.gz -o m.csv --picture {out}/m.png",
    "preview": "scan.nii.gz mask.nii.gz -o {out}/p.png",
    "preview --measure": "scan.nii.gz mask.nii.gz -o {out}/p.png --measure lung",
    "serve": "series -o {out}/x --model model.safetensors",
    "report": "{out}",
    "rank": "results.csv -o {out}/r.csv",
    "learn-curve": "cases.csv --recipe recipe.yaml -o {out}/x --sizes 1",
    "augment": "recipe.yaml cases.csv -o {out}/a.png",
    "convert": "scan.nii.gz -o {out}/a.nrrd",
    "convert --as-mask": "mask.nii.gz -o {out}/a.nrrd --as-mask",
    "demo": "-o {out}/x",
    "phantom": "{out}/x",
    "ensemble": "model.safetensors model.safetensors -o {out}/e.safetensors",
    "export": "model.safetensors -o {out}/x",
    "export monai-bundle": "model.safetensors -o {out}/x --format monai-bundle",
    "export torchscript": "model.safetensors -o {out}/x.pt --format torchscript",
    "import-model": "series -o {out}/x.safetensors",
    "import-weights": "weights.pth --recipe recipe.yaml -o {out}/x.safetensors",
}
FILES = (
    "scan.nii.gz", "b.nii.gz", "mask.nii.gz", "cases.csv", "a.csv", "b.csv", "results.csv", "recipe.yaml",
    "model.safetensors", "weights.pth", "file", "series/1.dcm", "locked/results.csv",
)  # fmt: skip
RUN_ALL = """
import io, json, os, sys
from contextlib import redirect_stderr, redirect_stdout
from medseg.cli import run_command
access = os.access
os.access = lambda path, mode, **k: not ("locked" in str(path) and mode & os.W_OK) and access(path, mode, **k)
told, heavy = {}, []
for name, arguments in json.load(sys.stdin).items():
    err = io.StringIO()
    sys.argv = ["medseg", *arguments]
    before = "torch" in sys.modules
    try:
        with redirect_stderr(err), redirect_stdout(io.StringIO()):
            run_command()
        code = 0
    except SystemExit as ended:
        code = ended.code
    except Exception as error:
        code = repr(error)
    told[name] = [code, err.getvalue(), "torch" in sys.modules and not before]
print(json.dumps(told))
"""
FORMS = {"in a file": "file", "not writable": "locked"}


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> dict[str, list]:
    """The exit code and the message of each command, and whether it has imported torch."""
    folder = tmp_path_factory.mktemp("inputs")
    for name in FILES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("nonsense\n")
    lines = {
        f"{name}, {form}": [name.split()[0], *arguments.format(out=out).split()]
        for form, out in FORMS.items()
        for name, arguments in WRITING.items()
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL],
        input=json.dumps(lines), cwd=folder, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", WRITING)
def test_an_output_that_cannot_be_written_is_told_first(told, name, form):
    if (name, form) == ("report", "in a file"):
        pytest.skip("the output is the input")
    code, err, imports_torch = told[f"{name}, {form}"]
    problem = ("not a folder", "does not exist", "no such") if FORMS[form] == "file" else ("no permission",)
    assert any(each in err for each in problem), err
    assert FORMS[form] in err
    assert "nonsense" not in err
    assert code in (2, 5)
    assert not imports_torch


def test_every_command_that_writes_is_tried():
    assert {name.split()[0] for name in WRITING} | set(SILENT) == set(COMMANDS)
