"""``medseg learn-curve`` as a command: table, report, continuation, and mistakes in its sizes."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from support.commands import invoke
from support.processes import command_code, heavy_imports
from support.worlds import phantoms, tiny

import medseg

pytestmark = pytest.mark.filterwarnings("ignore::medseg.errors.InputWarning")


def test_the_command_writes_table_and_report_and_continues(tmp_path: Path) -> None:
    made = phantoms(tmp_path, "train", "train", "val")
    medseg.Manifest(name="curve", cases=tuple(made)).write(tmp_path / "cases.csv")
    (tmp_path / "r.yaml").write_text(tiny(train={"epochs": 1, "steps_per_epoch": 1}).yaml())
    command = (
        "learn-curve",
        tmp_path / "cases.csv",
        "--recipe",
        tmp_path / "r.yaml",
        "-o",
        tmp_path / "curve",
    )
    options = ("--workers", "0", "-d", "cpu")
    out, err = invoke(*command, "--sizes", "1", *options)
    assert "1 cases, epoch 1/1" in err
    assert "1 cases, all labels: Dice" in out
    out, err = invoke(*command, "--sizes", "1,2", *options)
    assert "1 cases, epoch" not in err  # not trained again
    assert "to the smaller number" in out
    with (tmp_path / "curve" / "learning_curve.csv").open() as file:
        assert {row["cases"] for row in csv.DictReader(file)} == {"1", "2"}
    assert "<circle" in (tmp_path / "curve" / "report.html").read_text()


def test_sizes_that_are_no_numbers_are_named_without_heavy_imports(tmp_path: Path) -> None:
    words = ["learn-curve", "cases.csv", "--recipe", "r.yaml", "-o", "curve", "--sizes", "two"]
    _, err = invoke(*words, code=2)
    assert "--sizes 'two' is not a list of whole numbers" in err
    code = f"""
try:
    {command_code(*words).replace("; ", chr(10) + "    ")}
except SystemExit as ended:
    assert ended.code == 2
"""
    assert heavy_imports(code, cwd=tmp_path) == []
    assert not (tmp_path / "curve").exists()
