"""Batches: whatever happens to a case, a worker or the run, nothing is lost and nothing is done twice."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import psutil
import pytest
from support.processes import environment
from support.worlds import tiny, untrained

from medseg import Grid, Volume
from medseg.batch_processing import process_pool, runner
from medseg.batch_processing.case_discovery import Item, items, shard
from medseg.batch_processing.fingerprint import stamp
from medseg.batch_processing.folder_lock import lock_folder
from medseg.batch_processing.process_pool import PoolSize
from medseg.batch_processing.runner import BatchConfig, BatchSummary, StopRequest, merge_batch
from medseg.errors import InputWarning, ResourceError, UsageError
from medseg.io import read as read_scan
from medseg.io import write_dicom_series
from medseg.phantom.thorax import Thorax, default_grid
from medseg.visualization.labelled_masks import read_named

GRID = Grid((24, 24, 10), np.diag([12.0, 12.0, 20.0, 1.0]))


def chest(number: int = 0) -> Volume:
    """Boxes of -800 and -700 HU in a grey one in air: 4 x 12 x 6 voxels where x is low (left), 6 x 12 x 6."""
    array = np.full(GRID.shape, -1000, np.int16)
    array[2:-2, 2:-2] = 40 + number
    array[4:8, 6:18, 2:8] = -800
    array[14:20, 6:18, 2:8] = -700
    return Volume(array, GRID)


@pytest.fixture
def scans(tmp_path) -> Path:
    """Six scans and a manifest of them."""
    folder = tmp_path / "scans"
    folder.mkdir()
    rows = ["id,image"]
    for number in range(6):
        chest(number).save(folder / f"{number}.nii.gz")
        rows.append(f"c{number},{number}.nii.gz")
    (folder / "cases.csv").write_text("\n".join(rows) + "\n")
    return folder


def order(folder: Path, **changes: object) -> BatchConfig:
    return BatchConfig(**{"models": ("threshold",), "folder": str(folder), "scratch": "", **changes})


def run(found: list[Item], config: BatchConfig, *, workers: int = 1, **options: object) -> BatchSummary:
    """A batch with one worker unless it says otherwise: each takes seconds to start."""
    return runner.run(found, config, workers=workers, **options)


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "results.csv").set_index("case")


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def medseg(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "medseg.cli", *map(str, arguments)]


def test_every_case_has_a_mask_and_a_row(scans, tmp_path):
    out = tmp_path / "out"
    ended = run(items(scans / "cases.csv"), order(out))
    assert (ended.done, ended.skipped, ended.failed, ended.left) == (6, 0, 0, 0)
    found = table(out)
    assert list(found.index) == [f"c{number}" for number in range(6)]
    # By paper and pencil: 288 and 432 voxels of 12 x 12 x 20 mm.
    assert found["left_lung_ml"].tolist() == [pytest.approx(288 * 2.88)] * 6
    assert found["right_lung_ml"].tolist() == [pytest.approx(432 * 2.88)] * 6
    assert found["left_lung_mean"].tolist() == [-800] * 6
    assert found["right_lung_p95"].tolist() == [-700] * 6
    assert set(found["status"]) == {"done"}
    assert found["input_sha256"].nunique() == 6
    assert found["seconds_segment"].notna().all()
    assert found["right_lung_components"].tolist() == [1] * 6
    assert not found["right_lung_at_border"].any()
    mask = nib.load(out / found.loc["c3", "mask"])
    np.testing.assert_array_equal(mask.affine, GRID.affine)
    assert int((np.asarray(mask.dataobj) == 1).sum()) == 432
    left = {path.name for path in out.iterdir()}
    assert left == {"masks", "results.csv", "journal.jsonl", "thumbnails.jsonl", ".lock"}


def test_bad_scans_are_named_and_do_not_stop_the_others(scans, tmp_path):
    (scans / "1.nii.gz").write_bytes((scans / "1.nii.gz").read_bytes()[:200])
    (scans / "2.nii.gz").unlink()
    with (scans / "cases.csv").open("a") as file:
        file.write("bad/name,3.nii.gz\nc7,3.nii.gz,too many\nc8,\n")
    out = tmp_path / "out"
    ended = run(items(scans / "cases.csv"), order(out))
    assert (ended.done, ended.failed) == (4, 5)
    reasons = table(out)["reason"].dropna().to_dict()
    assert reasons == {
        "c1": "unreadable",
        "c2": "not-found",
        "bad_name": "manifest-field",
        "row_9": "manifest-csv",
        "c8": "manifest-missing-field",
    }
    assert "row 8" in table(out).loc["bad_name", "message"]


def test_a_second_run_does_only_what_has_changed(scans, tmp_path):
    out = tmp_path / "out"
    cases = items(scans / "cases.csv")
    run(cases, order(out))
    masks = out / "masks"
    before = {path.name: path.stat().st_mtime_ns for path in masks.glob("*.nii.gz")}
    chest(50).save(scans / "1.nii.gz")  # another input
    (masks / "c2.nii.gz").unlink()  # a mask that is gone
    (masks / "c3.nii.gz").write_bytes((masks / "c4.nii.gz").read_bytes()[:-9])  # one that was cut off
    done: list[str] = []
    ended = run(
        cases,
        order(out),
        resume=True,
        show=lambda event: done.append(event["case"]) if event["event"] == "case" else None,
    )
    assert sorted(done) == ["c1", "c2", "c3"]
    assert (ended.done, ended.skipped) == (3, 3)
    after = {path.name: path.stat().st_mtime_ns for path in masks.glob("*.nii.gz")}
    assert {name for name in after if after[name] == before[name]} == {f"c{n}.nii.gz" for n in (0, 4, 5)}
    assert int((voxels(masks / "c3.nii.gz") == 1).sum()) == 432
    # Other options: everything again.
    assert run(cases, order(out, any_modality=True), resume=True).done == 6


def test_a_folder_with_results_is_not_gone_on_with_unasked(scans, tmp_path):
    out = tmp_path / "out"
    run(items(scans / "cases.csv")[:1], order(out))
    with pytest.raises(UsageError, match="results of 1 cases") as refused:
        run(items(scans / "cases.csv"), order(out))
    assert refused.value.reason == "has-results"


def test_refused_scans_are_tried_again_only_when_asked(scans, tmp_path):
    (scans / "1.nii.gz").write_bytes(b"nothing of the kind")
    out, cases = tmp_path / "out", items(scans / "cases.csv")[:2]
    assert run(cases, order(out)).failed == 1
    again = run(cases, order(out), resume=True)
    assert (again.done, again.failed, again.skipped) == (0, 1, 1)
    stamped = (scans / "1.nii.gz").stat()
    chest().save(scans / "1.nii.gz")
    os.utime(scans / "1.nii.gz", ns=(stamped.st_atime_ns, stamped.st_mtime_ns))
    assert run(cases, order(out), retry_failed=True).done == 1


def test_models_share_a_scan_and_have_a_row_each(tmp_path):
    patient = Thorax.random(3)
    patient.scan(default_grid((8.0, 9.0, 12.0), "LPS"), seed=3).save(tmp_path / "3.nii.gz")
    model = untrained(tiny()).save(tmp_path / "model.safetensors")
    out = tmp_path / "out"
    ended = run(
        items(tmp_path / "3.nii.gz"),
        order(out, models=("threshold", str(model)), overlays=True, probabilities=True),
    )
    assert (ended.done, ended.failed) == (1, 0)
    found = table(out)
    assert found["mask"].tolist() == ["masks/threshold/3.nii.gz", "masks/tiny_3d/3.nii.gz"]
    assert found["input_sha256"].nunique() == 1
    from medseg import segment

    alone = segment(tmp_path / "3.nii.gz", model=model)
    np.testing.assert_array_equal(voxels(out / "masks/tiny_3d/3.nii.gz"), alone.array)
    assert (out / "overlays/tiny_3d/3.png").read_bytes()[:4] == b"\x89PNG"
    maps = sorted((out / "probabilities/tiny_3d").iterdir())
    assert maps
    entropies = found.filter(regex="_entropy$")
    assert entropies.iloc[0].isna().all()
    assert entropies.iloc[1].dropna().between(0, 1).all()
    assert len(entropies.iloc[1].dropna())
    values = voxels(maps[0])
    assert values.shape == alone.grid.shape
    assert 0 <= values.min() <= values.max() <= 1


def test_dicom_scans_get_a_dicom_mask(tmp_path):
    pytest.importorskip("highdicom")
    (tmp_path / "in").mkdir()
    write_dicom_series(chest(), tmp_path / "in" / "series")
    chest().save(tmp_path / "in" / "other.nii.gz")
    out = tmp_path / "out"
    assert run(items(tmp_path / "in"), order(out, dicom="dicom-seg")).done == 2
    import pydicom

    assert pydicom.dcmread(out / "dicom" / "series.dcm").Modality == "SEG"
    assert [path.name for path in (out / "dicom").iterdir()] == ["series.dcm"]


def test_a_folder_is_searched_for_series_and_images(tmp_path):
    root = tmp_path / "in"
    (root / "a" / "b").mkdir(parents=True)
    (root / ".hidden").mkdir()
    chest().save(root / "scan.nii.gz")
    chest().save(root / "a" / "scan.nii.gz")
    chest().save(root / "a_scan.nii.gz")
    chest().save(root / ".hidden" / "scan.nii.gz")
    (root / "notes.txt").write_text("nothing")
    for name in ("p1", "p2", "p3"):
        (root / name).mkdir()
    write_dicom_series(chest(), root / "p1" / "ct")
    write_dicom_series(chest(1), root / "p2" / "both")
    for number, path in enumerate(sorted(write_dicom_series(chest(2), root / "x").iterdir())):
        path.rename(root / "p2" / "both" / f"other{number}.dcm")
    (root / "x").rmdir()
    (root / "p3" / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 40)
    chest().save(root / "out.nii.gz")
    (root / "out").mkdir()
    chest().save(root / "out" / "mask.nii.gz")
    with pytest.warns(InputWarning, match="a_scan"):
        found = items(root, without=root / "out")
    names = [item.id for item in found]
    assert sorted(n for n in names if not n.startswith("p")) == ["a_scan_1", "a_scan_2", "out", "scan"]
    assert len([n for n in names if n.startswith("p2_both_")]) == 2
    assert {n for n in names if n.startswith(("p1", "p3"))} == {"p1_ct", "p3_broken"}
    out = tmp_path / "out"
    ended = run(found, order(out))
    assert (ended.done, ended.failed) == (7, 1)
    assert len({path.read_bytes() for path in (out / "masks").glob("p2*")}) >= 1


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(UsageError) as refused:
        items(tmp_path)
    assert refused.value.reason == "no-cases"


def test_a_wrong_path_is_refused_before_anything_is_written(tmp_path):
    ended = subprocess.run(
        medseg("batch", tmp_path / "no" / "such", "-o", tmp_path / "out"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "no such file or folder" in ended.stderr
    assert not (tmp_path / "out").exists()


def test_warnings_stand_in_the_table_and_are_named_at_the_end(scans, tmp_path):
    Volume(np.zeros(GRID.shape, np.int16), GRID).save(scans / "2.nii.gz")
    command = medseg("batch", scans / "cases.csv", "-o", tmp_path / "out", "--model", "threshold")
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "c2: threshold: done, warning: no lung was found" in ended.stderr
    assert "\nwarned of: c2\n" in ended.stderr
    told = table(tmp_path / "out")["warnings"]
    assert told["c2"].startswith("no lung was found")
    assert told.drop("c2").isna().all()


def test_masks_of_a_batch_know_the_names_of_their_labels(scans, tmp_path):
    run(items(scans / "cases.csv"), order(tmp_path / "out"))
    mask = read_named(tmp_path / "out" / "masks" / "c3.nii.gz", read_scan(scans / "3.nii.gz"))
    assert [(label.name, label.values) for label in mask.labels] == [
        ("right_lung", (1,)),
        ("left_lung", (2,)),
    ]


def test_ids_that_are_there_twice_get_numbers(tmp_path):
    (tmp_path / "m.csv").write_text("id,image\na,1.nii\nA,2.nii\na_1,3.nii\nb,4.nii\n")
    with pytest.warns(InputWarning, match="more than once"):
        names = [item.id for item in items(tmp_path / "m.csv")]
    assert len({name.casefold() for name in names}) == 4
    assert names[2:] == ["a_1", "b"]


def test_shards_divide_the_cases_and_merge_again(scans, tmp_path):
    found, out = items(scans / "cases.csv"), tmp_path / "out"
    parts = [shard(found, f"{number}/4") for number in (1, 2, 3, 4)]
    assert sorted(item.id for part in parts for item in part) == [item.id for item in found]
    for number, part in enumerate(parts[:3], start=1):
        run(part, order(out), shard=f"{number}-of-4")
    assert len(pd.read_csv(out / "results-1-of-4.csv")) == 2
    assert not (out / "results.csv").exists()
    merged = merge_batch(out)
    assert (merged.skipped, merged.failed, merged.left) == (5, 0, 0)
    assert len(table(out)) == 5
    # The whole run knows what the shards have done.
    assert (run(found, order(out), resume=True).skipped) == 5
    for bad in ("0/4", "5/4", "1", "a/b"):
        with pytest.raises(UsageError) as refused:
            shard(found, bad)
        assert refused.value.reason == "shard"
    with pytest.raises(UsageError) as refused:
        merge_batch(scans)
    assert refused.value.reason == "no-journal"


def test_two_runs_on_one_folder_exclude_one_another(scans, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    holder = "import sys, time\nfrom pathlib import Path\n"
    holder += "from medseg.batch_processing.folder_lock import lock_folder\n"
    holder += "with lock_folder(Path(sys.argv[1])): print('held', flush=True); time.sleep(100)"
    with subprocess.Popen([sys.executable, "-c", holder, out], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(UsageError, match=f"process {other.pid} on ") as refused:
            run(items(scans / "cases.csv"), order(out))
        assert refused.value.reason == "in-use"
        with pytest.raises(UsageError), lock_folder(out, "1-of-2"):
            pass
        other.kill()
        other.wait()
    assert run(items(scans / "cases.csv")[:1], order(out)).done == 1
    with lock_folder(out, "1-of-2"), lock_folder(out, "2-of-2"), pytest.raises(UsageError), lock_folder(out):
        pass


def test_a_changed_file_beside_a_named_slice_changes_the_case(tmp_path):
    folder = write_dicom_series(chest(), tmp_path / "ct")
    first, last = sorted(folder.iterdir())[0], sorted(folder.iterdir())[-1]
    before = stamp([first], {}), stamp([folder], {})
    assert before == (stamp([first], {}), stamp([folder], {}))
    os.utime(last, ns=(0, 0))
    assert before[0] != stamp([first], {})
    assert before[1] != stamp([folder], {})
    assert stamp([tmp_path / "none"], {}) is None


@pytest.fixture
def spoiled(tmp_path, monkeypatch) -> Path:
    """A place for code that every worker runs when it starts."""
    place = tmp_path / "spoiled"
    place.mkdir()
    monkeypatch.syspath_prepend(str(place))
    return place / "sitecustomize.py"


SPOILED = """
import os, signal, time
from pathlib import Path
import medseg.inference.threshold_segmenter
before = medseg.inference.threshold_segmenter.ThresholdSegmenter.prepare
def prepare(self, scan):
    (volume,) = scan
    if volume.source.path.name.startswith("3"):
        {what}
    return before(self, scan)
medseg.inference.threshold_segmenter.ThresholdSegmenter.prepare = prepare
"""


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "worker-died"),
        ("raise MemoryError", "memory"),
        ("raise ZeroDivisionError('of all things')", "unexpected"),
    ],
)
def test_a_case_that_ends_its_worker_is_one_failed_case(scans, tmp_path, spoiled, what, reason):
    spoiled.write_text(SPOILED.format(what=what))
    out = tmp_path / "out"
    ended = run(items(scans / "cases.csv"), order(out), workers=2, case_seconds=10_000)
    assert (ended.done, ended.failed) == (5, 1)
    assert table(out)["reason"].dropna().to_dict() == {"c3": reason}


def test_a_case_that_hangs_is_one_failed_case(scans, tmp_path, spoiled, monkeypatch):
    hangs = tmp_path / "hangs"
    out = tmp_path / "out"
    spoiled.write_text(SPOILED.format(what=f"Path({str(hangs)!r}).touch(); time.sleep(100_000)"))
    passed, told = 0.0, []

    def monotonic() -> float:
        """A clock that passes a thousand seconds at every look, from when the case hangs until it is told."""
        nonlocal passed
        if hangs.exists() and "c3" not in told:
            passed += 1000
        return time.monotonic() + passed

    monkeypatch.setattr(process_pool, "time", SimpleNamespace(monotonic=monotonic))
    ended = run(
        items(scans / "cases.csv"),
        order(out),
        case_seconds=10_000,
        show=lambda event: told.append(event.get("case")),
    )
    assert (ended.done, ended.failed) == (5, 1)
    assert table(out)["reason"].dropna().to_dict() == {"c3": "case-time"}


def test_workers_that_cannot_start_end_the_batch(scans, tmp_path, spoiled):
    spoiled.write_text("import os; os._exit(3)")
    with pytest.raises(ResourceError, match="ended before it was ready: exit code 3") as refused:
        run(items(scans / "cases.csv"), order(tmp_path / "out"), workers=1)
    assert refused.value.reason == "worker"


def test_a_case_short_of_memory_is_tried_again_alone(scans, tmp_path, spoiled):
    # It has room only where its worker got all the memory: half as much is not enough.
    what = "import resource; used = int(Path('/proc/self/status').read_text().split('VmData:')[1].split()[0])"
    what += "\n        room = resource.getrlimit(resource.RLIMIT_DATA)[0] - 1024 * used"
    what += "\n        if room < 2.5 * 2**30: raise MemoryError"
    spoiled.write_text(SPOILED.format(what=what))
    out = tmp_path / "out"
    ended = run(items(scans / "cases.csv"), order(out), workers=2, memory_bytes=4 << 30)
    assert (ended.done, ended.failed) == (6, 0)


def test_memory_decides_how_many_workers_there_are():
    few = PoolSize.planned(cases=100, workers=None, memory_bytes=3 << 30)
    assert few.workers == 1
    assert not PoolSize.planned(cases=100, workers=2, memory_bytes=3 << 30).ahead
    assert PoolSize.planned(cases=1, workers=8, memory_bytes=30 << 30).workers == 1
    with pytest.raises(ResourceError) as refused:
        PoolSize.planned(cases=1, workers=None, memory_bytes=100 << 20)
    assert refused.value.reason == "memory"


def workers_of(process: int) -> list[psutil.Process]:
    """The workers that a batch has started."""
    children = psutil.Process(process).children(recursive=True)
    return [child for child in children if "medseg.batch_processing.worker" in " ".join(child.cmdline())]


def test_a_worker_that_is_killed_loses_nothing(scans, tmp_path):
    out, killed = tmp_path / "out", []

    def show(event: dict[str, object]) -> None:
        if event["event"] == "case" and not killed:
            killed.extend(workers_of(os.getpid())[:1])
            for worker in killed:
                worker.kill()

    ended = run(items(scans / "cases.csv"), order(out), workers=2, show=show)
    assert killed
    assert (ended.done, ended.failed) == (6, 0)


def lines(process: subprocess.Popen[bytes]) -> Iterator[dict[str, object]]:
    assert process.stdout is not None
    for line in process.stdout:
        yield json.loads(line)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_batch_after_the_cases_at_hand(scans, tmp_path, spoiled, number):
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
    ended = run(items(scans / "cases.csv"), order(out), resume=True)
    assert (ended.done + ended.skipped, ended.failed) == (6, 0)
    assert ended.skipped == rest[-1]["done"]


def test_a_batch_asked_twice_ends_at_once(scans, tmp_path, spoiled):
    spoiled.write_text(SPOILED.format(what="time.sleep(10_000)"))
    stop = StopRequest()

    def show(event: dict[str, object]) -> None:
        if event["event"] == "case":
            stop.ask()
            stop.ask()

    ended = run(items(scans / "cases.csv"), order(tmp_path / "out"), show=show, stop=stop, workers=1)
    assert ended.left > 0


@pytest.mark.slow
def test_kills_at_any_moment_leave_whole_masks_only(scans, tmp_path):
    out = tmp_path / "out"
    command = medseg("batch", scans / "cases.csv", "-o", out, "--model", "threshold", "--resume")
    for wait in (0.5, 1.5, 2.0, 2.3, 2.6):
        with subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL) as process:
            time.sleep(wait)
            os.killpg(process.pid, signal.SIGKILL)
        for path in (out / "masks").glob("*.nii.gz"):
            assert int((voxels(path) == 1).sum()) == 432
    ended = run(items(scans / "cases.csv"), order(out), resume=True)
    assert (ended.done + ended.skipped, ended.failed) == (6, 0)
    assert not [path for path in out.rglob("*") if "scratch" in path.name or "medseg-" in path.name]


def test_workers_and_their_order_do_not_matter(tmp_path):
    model = untrained(tiny()).save(tmp_path / "model.safetensors")
    found = []
    for number in range(4):
        scan = Thorax.random(number).scan(default_grid((8.0, 9.0, 12.0), "LPS"), seed=number)
        found.append(Item(f"c{number}", (scan.save(tmp_path / f"{number}.nii.gz"),)))
    one, two = tmp_path / "one", tmp_path / "two"
    run(found, order(one, models=(str(model),)), workers=1)
    run(found[::-1], order(two, models=(str(model),)), workers=2)
    for item in found:
        mask = f"masks/{item.id}.nii.gz"
        assert (one / mask).read_bytes() == (two / mask).read_bytes()


def test_models_that_cannot_be_loaded_end_the_batch_before_it_begins(scans, tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense" * 100)
    from medseg.errors import ModelRefused

    with pytest.raises(ModelRefused):
        run(items(scans / "cases.csv"), order(tmp_path / "out", models=(str(tmp_path / "bad.safetensors"),)))


def test_the_command_line_tells_of_failures(scans, tmp_path):
    (scans / "1.nii.gz").write_bytes(b"")
    command = medseg("batch", scans, "-o", tmp_path / "out", "--model", "threshold", "--memory", "3G")
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stdout.strip() == "5 done, 1 failed"
    assert "1: threshold: failed: empty" in ended.stderr
    assert "\nfailed: 1\n" in ended.stderr
    assert f"medseg report {tmp_path / 'out'}" in ended.stderr
    merged = subprocess.run(
        medseg("batch", "--merge", tmp_path / "out"), capture_output=True, text=True, check=True
    )
    assert merged.stdout.strip() == "0 done, 5 done before, 1 failed"


@pytest.mark.slow
def test_a_ray_cluster_makes_the_same(scans, tmp_path):
    """Also when one of its two workers is killed."""
    pytest.importorskip("ray")
    from medseg.batch_processing.ray_pool import RayPool

    here, there, killed = tmp_path / "here", tmp_path / "there", []
    found = items(scans / "cases.csv")
    (scans / "5.nii.gz").write_bytes(b"nothing")
    run(found, order(here))

    def show(event: dict[str, object]) -> None:
        if event["event"] == "case" and not killed:
            children = psutil.Process().children(recursive=True)
            actors = [child for child in children if child.cmdline()[:1] == ["ray::Actor"]]
            killed.extend(actors[:1])
            for actor in killed:
                actor.kill()

    ended = run(
        found,
        order(there),
        start=lambda order, cases: RayPool(order, cases=cases, address=None, workers=2, gpus=0),
        show=show,
    )
    assert killed
    assert (ended.done, ended.failed) == (5, 1)
    for number in range(5):
        mask = f"masks/c{number}.nii.gz"
        assert (here / mask).read_bytes() == (there / mask).read_bytes()
    columns = [name for name in table(here).columns if not name.startswith("seconds")]
    pd.testing.assert_frame_equal(table(here)[columns], table(there)[columns])


def test_a_cluster_that_is_not_there_is_told(scans, tmp_path):
    pytest.importorskip("ray")
    words = ("--model", "threshold", "--engine", "ray", "--address", "nonsense://nowhere")
    command = medseg("batch", scans, "-o", tmp_path / "out", *words)
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 5
    assert "no Ray cluster answers" in ended.stderr
