"""Ctrl-C ends every command with one line and exit code 130."""

from __future__ import annotations

import builtins
import inspect
import sys

import pytest
from support.commands import run

from medseg.cli.app import COMMANDS

# The least with which a command begins its work.
ARGUMENTS = {
    "segment": "a.nii.gz -o m.nii.gz --model threshold",
    "batch": "cases.csv -o out",
    "job": "in .",
    "manifest": "cases.csv -o m.csv",
    "check": "cases.csv",
    "plan": "cases.csv -o r.yaml",
    "train": "phantom_lungs cases.csv -o run",
    "tune": "cases.csv --recipe phantom_lungs -o search",
    "evaluate": "cases.csv --masks in --recipe phantom_lungs -o scores",
    "compare": "a.csv b.csv -o versus",
    "measure": "a.nii.gz a.nii.gz -o m.csv",
    "preview": "a.nii.gz a.nii.gz -o a.png",
    "view": "a.nii.gz",
    "serve": "in",
    "report": "in",
    "rank": "in",
    "learn-curve": "cases.csv --recipe phantom_lungs --sizes 1 -o curve",
    "augment": "phantom_lungs cases.csv -o a.png",
    "convert": "a.nii.gz -o b.nrrd",
    "info": "a.nii.gz",
    "models": "",
    "demo": "-o demo",
    "phantom": "p",
    "recipe": "",
    "ensemble": "a.safetensors b.safetensors -o e.safetensors",
    "export": "lung_ct_context -o package",
    "import-model": "in -o m.safetensors",
    "import-weights": "a.pth --recipe phantom_lungs -o m.safetensors",
}
# What runs while a command that stops in its own way is at work.
AT_WORK = {
    "batch": ("medseg.batch_processing.launcher.batch", 130, ""),
    "train": ("medseg.training.session.train", 130, "--resume to continue"),
    "tune": ("medseg.tuning.tuner.tune", 130, "the same command continues"),
    "learn-curve": ("medseg.cross_validation.learning_curve.learning_curve", 130, ""),
    "serve": ("medseg.serving.server.serve", 130, ""),
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    for name in ("a.nii.gz", "a.csv", "b.csv", "a.pth", "a.safetensors", "b.safetensors"):
        (tmp_path / name).write_text("nonsense")
    (tmp_path / "cases.csv").write_text("id,image,label,split\na,a.nii.gz,a.nii.gz,train\n")


@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c_ends_a_command_with_one_line(name, monkeypatch, capsys):
    """It comes when the command imports what it needs."""
    file, original = inspect.getfile(COMMANDS[name]), builtins.__import__

    def importing(module, *others, **named):
        if sys._getframe(1).f_code.co_filename == file and module.startswith("medseg"):
            raise KeyboardInterrupt
        return original(module, *others, **named)

    monkeypatch.setattr(builtins, "__import__", importing)
    assert run(monkeypatch, f"medseg {name} {ARGUMENTS[name]}") == 130
    assert capsys.readouterr() == ("", "error: interrupted\n")


@pytest.mark.parametrize("name", AT_WORK)
def test_ctrl_c_ends_long_work_without_a_traceback(name, monkeypatch, capsys):
    worker, code, hint = AT_WORK[name]

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(worker, stopped)
    assert run(monkeypatch, f"medseg {name} {ARGUMENTS[name]}") == code
    err = capsys.readouterr().err
    assert err.endswith("error: interrupted\n")
    assert hint in err
    assert len(err.splitlines()) == 1 + bool(hint)
