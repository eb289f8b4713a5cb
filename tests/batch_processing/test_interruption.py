"""Signals and kills: finished cases stay finished, and no file is left half written."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest
from support.batches import SPOILED, config_for, medseg, run, table, voxels
from support.processes import environment

from medseg.batch_processing.case_discovery import items
from medseg.batch_processing.journal import Journal
from medseg.batch_processing.messages import StopRequest
from medseg.errors import ResourceError


def lines(process: subprocess.Popen[bytes]) -> Iterator[dict[str, object]]:
    assert process.stdout is not None
    for line in process.stdout:
        yield json.loads(line)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_batch_after_the_running_cases(scans, tmp_path, spoiled, number):
    slow = SPOILED.replace('if volume.source.path.name.startswith("3"):', "if True:")
    spoiled.write_text(slow.format(what="time.sleep(0.5)"))
    out = tmp_path / "out"
    command = medseg(
        "batch", scans / "cases.csv", "-o", out, "--model", "threshold", "--workers", 1, "--json"
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment()) as process:
        for event in lines(process):
            if event["event"] == "case":
                process.send_signal(number)
                break
        rest = list(lines(process))
    assert process.returncode == 128 + number
    assert rest[-1]["event"] == "end"
    assert rest[-1]["left"] > 0
    assert len(table(out)) == rest[-1]["done"]
    assert not list(out.glob(".scratch*"))
    ended = run(items(scans / "cases.csv"), config_for(out), resume=True)
    assert (ended.done + ended.skipped, ended.failed) == (6, 0)
    assert ended.skipped == rest[-1]["done"]


def test_a_second_stop_request_ends_the_batch_at_once(scans, tmp_path, spoiled):
    spoiled.write_text(SPOILED.format(what="time.sleep(10_000)"))
    stop = StopRequest()

    def show(event: dict[str, object]) -> None:
        if event["event"] == "case":
            stop.ask()
            stop.ask()

    ended = run(items(scans / "cases.csv"), config_for(tmp_path / "out"), show=show, stop=stop, workers=1)
    assert ended.left > 0


@pytest.mark.slow
def test_kills_at_any_moment_leave_only_complete_masks(scans, tmp_path):
    out = tmp_path / "out"
    command = medseg("batch", scans / "cases.csv", "-o", out, "--model", "threshold", "--resume")
    for wait in (0.5, 1.5, 2.0, 2.3, 2.6):
        with subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL) as process:
            time.sleep(wait)
            os.killpg(process.pid, signal.SIGKILL)
        for path in (out / "masks").glob("*.nii.gz"):
            assert int((voxels(path) == 1).sum()) == 432
    ended = run(items(scans / "cases.csv"), config_for(out), resume=True)
    assert (ended.done + ended.skipped, ended.failed) == (6, 0)
    assert not [path for path in out.rglob("*") if "scratch" in path.name or "medseg-" in path.name]


@pytest.mark.parametrize("stop", ["disk full", "second Ctrl-C"])
def test_a_mask_without_a_row_is_known_to_the_next_run(scans, tmp_path, monkeypatch, stop):
    """The batch ends between the moving of a mask and the line in the journal."""
    out, found, append = tmp_path / "out", items(scans / "cases.csv")[:2], Journal.append

    def fail(self: Journal, record: dict[str, object]) -> None:
        if record.get("case") == "c1":
            if stop == "disk full":
                raise ResourceError("no space left", reason="disk")
            raise KeyboardInterrupt
        append(self, record)

    with monkeypatch.context() as context:
        context.setattr(Journal, "append", fail)
        with pytest.raises((ResourceError, KeyboardInterrupt)):
            run(found, config_for(out))
    assert (out / "masks" / "c1.nii.gz").exists()
    ended = run(found, config_for(out), resume=True)
    assert (ended.done, ended.skipped) == (1, 1)
    assert not list(out.glob(".scratch*"))


def test_a_folder_that_is_deleted_meanwhile_ends_the_batch(scans, tmp_path):
    out = tmp_path / "out"

    def show(event: dict[str, object]) -> None:
        if event["event"] == "case":
            # Renamed first: the worker may be writing, and a folder being filled cannot be emptied.
            out.rename(tmp_path / "gone")
            shutil.rmtree(tmp_path / "gone", ignore_errors=True)

    with pytest.raises(ResourceError) as refused:
        run(items(scans / "cases.csv"), config_for(out), show=show, workers=1)
    assert refused.value.reason == "disk"
