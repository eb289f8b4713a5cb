"""What all commands have in common: the next command, and bars with n of m."""

from __future__ import annotations

import ast
import inspect
import re
from io import StringIO
from pathlib import Path
from shutil import copyfile

import pytest
from support.batches import chest
from support.commands import invoke
from support.worlds import phantoms, tiny, untrained

from medseg.cli.app import COMMANDS
from medseg.datasets.manifest import Manifest
from medseg.evaluation.model_evaluation import evaluate
from medseg.io import write_dicom_series

pytestmark = pytest.mark.filterwarnings("ignore::medseg.errors.InputWarning")

# Commands without a next one, and why.
NONE = {
    "view": "runs until it is stopped",
    "serve": "runs until it is stopped",
    "job": "a program that started the container goes on",
    "plan": "its standard output is the next command",
}
# Name of a command: its arguments, and the beginning of the next one.
SHORT = {
    "models": ("", "segment SCAN -o mask.nii.gz --model NAME"),
    "recipe": ("", "recipe NAME"),
    "recipe NAME": ("phantom_lungs", "check MANIFEST --recipe phantom_lungs"),
    "info": ("{scan}", "segment {scan} -o mask.nii.gz"),
    "segment": ("{scan} -o {t}/m.nii.gz --model threshold", "view {scan} {t}/m.nii.gz"),
    "convert": ("{scan} -o {t}/a.nrrd", "segment {t}/a.nrrd -o mask.nii.gz"),
    "convert --as-mask": ("{mask} -o {t}/a.nrrd --as-mask", "view SCAN {t}/a.nrrd"),
    "convert --reference": (
        "{mask} -o {t}/a.nrrd --as-mask --reference {scan}",
        "view {scan} {t}/a.nrrd",
    ),
    "preview": ("{scan} {mask} -o {t}/a.png", "view {scan} {mask}"),
    "measure": ("{scan} {mask} -o {t}/m.csv", "view {scan} {mask}"),
    "manifest": ("{w}/cases.csv -o {t}/m.csv", "check {t}/m.csv"),
    "check": ("{w}/cases.csv", "check {w}/cases.csv --recipe RECIPE"),
    "augment": (
        "{w}/recipe.yaml {w}/cases.csv -o {t}/a.png --count 2",
        "train {w}/recipe.yaml {w}/cases.csv -o",
    ),
    "evaluate": (
        "{w}/cases.csv --masks {w}/masks --recipe {w}/recipe.yaml --split all -o {t}/e",
        "report {t}/e",
    ),
    "compare": ("{w}/a/evaluation.csv {w}/b/evaluation.csv -o {t}/c", "report {w}/a"),
    "report": ("{w}/a", "compare {w}/a/evaluation.csv OTHER/evaluation.csv -o versus"),
    "ensemble": (
        "{w}/0.safetensors {w}/1.safetensors -o {t}/e.safetensors",
        "segment SCAN -o mask.nii.gz --model {t}/e",
    ),
}


# Commands that take long: their own tests run them.
LONG = {
    "phantom",
    "batch", "train", "tune", "learn-curve", "demo", "rank", "export", "import-model", "import-weights",
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> dict[str, Path]:
    """A phantom patient, two models, and two evaluations."""
    folder = tmp_path_factory.mktemp("w")
    case = phantoms(folder, "train")[0]
    assert case.label is not None
    Manifest(name="w", cases=(case,)).write(folder / "cases.csv")
    (folder / "recipe.yaml").write_text(tiny().yaml())
    for seed in range(2):
        untrained(tiny(), seed=seed).save(folder / f"{seed}.safetensors")
    (folder / "masks").mkdir()
    copyfile(case.label, folder / "masks" / f"{case.id}.nii.gz")
    for name in "ab":
        evaluate((case,), folder / name, masks=folder / "masks", labels=tiny().labels, split="all")
    write_dicom_series(chest(), folder / "series")
    return {"series": folder / "series", "w": folder, "scan": case.images[0], "mask": case.label}


@pytest.mark.parametrize("name", SHORT)
def test_a_command_names_the_next_one(world, tmp_path, name):
    arguments, following = (text.format(t=tmp_path, **world) for text in SHORT[name])
    err = invoke(name.split()[0], *arguments.split())[1]
    assert err.splitlines()[-1].startswith(f"Next: medseg {following}"), err


@pytest.mark.parametrize(("bits", "following"), [("", False), ("0.25", True)])
def test_a_report_names_rank_only_if_cases_can_be_ranked(tmp_path, bits, following):
    (tmp_path / "results.csv").write_text(
        "case,patient,model,status,reason,message,mask,warnings,input,lungs_ml,lungs_entropy\n"
        f"a,,m,done,,,a.nii.gz,,a,1.0,{bits}\n"
    )
    err = invoke("report", tmp_path)[1]
    assert ("Next: medseg rank" in err) == following, err
    invoke("rank", tmp_path, code=0 if following else 2)


def test_the_next_command_reads_the_scan_in_the_same_way(world, tmp_path):
    choices = "--volume 1 --trust sform --nonfinite -1024.0"
    scan, mask = world["scan"], world["mask"]
    for command in (
        f"preview {scan} {mask} -o {tmp_path}/a.png",
        f"measure {scan} {mask} -o {tmp_path}/m.csv",
    ):
        err = invoke(*command.split(), *choices.split())[1]
        assert err.splitlines()[-1] == f"Next: medseg view {scan} {mask} {choices}"
    err = invoke("info", scan, *choices.split())[1]
    assert err.splitlines()[-1] == f"Next: medseg segment {scan} {choices} -o mask.nii.gz"


def test_every_command_names_the_next_one_or_has_a_reason():
    assert {name.split()[0] for name in SHORT} | LONG | set(NONE) == set(COMMANDS)
    for name, command in COMMANDS.items():
        tree = ast.parse(Path(inspect.getfile(command)).read_text(encoding="utf-8"))
        called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert ("print_next" in called) == (name not in NONE), name


BARS = {
    "segment": ("{scan} -o {t}/m.nii.gz --model {w}/0.safetensors", r"\b(\d+)/\1\b.*windows"),
    "evaluate": ("{w}/cases.csv --masks {w}/masks --recipe {w}/recipe.yaml --split all -o {t}/e", "1/1"),
    "convert": ("{scan} -o {t}/a.nrrd", "1/2.*writing"),
    "convert DICOM": ("{series} -o {t}/a.nrrd", "10/11.*writing"),
    "report": ("{w}/a", "1/1.*cases"),
    "check": ("{w}/cases.csv", "1/1"),
    "view": ("{series} --no-browser", "1/2.*preparing the viewer"),
}


class Terminal(StringIO):
    """Standard error as a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("name", BARS)
def test_a_terminal_shows_n_of_m_and_the_time_left(world, tmp_path, monkeypatch, name):
    def stopped(self):
        raise KeyboardInterrupt

    monkeypatch.setattr("medseg.visualization.viewer.server.Server.serve_forever", stopped)
    monkeypatch.setattr("support.commands.StringIO", Terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    arguments, shown = (text.format(t=tmp_path, **world) for text in BARS[name])
    err = invoke(name.split()[0], *arguments.split())[1]
    assert re.search(shown, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", err)), err
    assert "left" in err
