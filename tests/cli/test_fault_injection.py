"""A short run of what `make inject` does at length, and whether it would notice what must not happen."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support import fault_checks, fault_injection
from support.batches import chest
from support.processes import PATIENCE, environment


@pytest.mark.slow
def test_faults_leave_no_traceback_and_no_half_file():
    words = ["--count", "6", "--seed", "5", "--jobs", "segment", "convert mask", "manifest", "check"]
    ended = subprocess.run(
        [sys.executable, fault_injection.__file__, *words],
        env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "6 runs, 0 with problems" in ended.stdout


def test_files_that_are_not_whole_are_noticed(tmp_path):
    scan = chest().save(tmp_path / "whole.nii.gz")
    for name, content in {
        "half.nii.gz": scan.read_bytes()[:-100],
        "half.json": b'{"labels": ',
        "half.csv": b"case,status\nc0,done\nc1",
        "half.jsonl": b'{"event": "start"}\n{"eve',
        "half.html": b"<html>",
        "half.png": b"\x89PNG\r\n",
        "model.safetensors": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / ".medseg-x").mkdir()
    (tmp_path / ".medseg-x" / "half.nii.gz").write_bytes(b"")
    found = [text.partition(":")[0] for text in fault_checks.damaged(tmp_path, killed=False)]
    assert found == sorted(path.name for path in tmp_path.glob("[hm]*"))
    # A line that was being added to a log is cut off when the log is opened again.
    found = [text.partition(":")[0] for text in fault_checks.damaged(tmp_path, killed=True)]
    assert "half.jsonl" not in found
    assert fault_checks.passing(tmp_path) == [".medseg-x"]


def test_other_outputs_and_tracebacks_are_noticed(tmp_path):
    for name in ("intact", "other"):
        (tmp_path / name / "masks").mkdir(parents=True)
        chest().save(tmp_path / name / "masks" / "c0.nii.gz")
    assert fault_checks.differences(tmp_path / "intact", tmp_path / "other") == []
    chest(1).save(tmp_path / "other" / "masks" / "c0.nii.gz")
    chest().save(tmp_path / "intact" / "masks" / "c1.nii.gz")
    assert fault_checks.differences(tmp_path / "intact", tmp_path / "other") == [
        "masks/c0.nii.gz differs",
        "masks/c1.nii.gz is missing",
    ]
    assert fault_checks.traces("Traceback (most recent call last):\n  File")
    assert not fault_checks.traces("error: interrupted\n")
