"""A worker process that dies, hangs or runs out of memory costs one case."""

import os
import time
from types import SimpleNamespace

import psutil
import pytest
from support.batches import SPOILED, config_for, run, table
from support.worlds import tiny, untrained

from medseg.batch_processing import process_pool
from medseg.batch_processing.case_discovery import Item, items
from medseg.batch_processing.messages import BatchConfig
from medseg.batch_processing.process_pool import PoolSize, ProcessPool
from medseg.errors import ResourceError
from medseg.phantom.thorax import Thorax, default_grid
from medseg.system.notices import collect_notices


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
    ended = run(items(scans / "cases.csv"), config_for(out), workers=2, case_minutes=200)
    assert (ended.done, ended.failed) == (5, 1)
    assert table(out)["reason"].dropna().to_dict() == {"c3": reason}


def test_a_case_that_hangs_is_one_failed_case(scans, tmp_path, spoiled, monkeypatch):
    hangs = tmp_path / "hangs"
    out = tmp_path / "out"
    spoiled.write_text(SPOILED.format(what=f"Path({str(hangs)!r}).touch(); time.sleep(100_000)"))
    passed, reported = 0.0, []

    def monotonic() -> float:
        """A clock that advances by 1000 s at every call while the case hangs."""
        nonlocal passed
        if hangs.exists() and "c3" not in reported:
            passed += 1000
        return time.monotonic() + passed

    monkeypatch.setattr(process_pool, "time", SimpleNamespace(monotonic=monotonic))
    ended = run(
        items(scans / "cases.csv"),
        config_for(out),
        workers=1,
        case_minutes=200,
        show=lambda event: reported.append(event.get("case")),
    )
    assert (ended.done, ended.failed) == (5, 1)
    assert table(out)["reason"].dropna().to_dict() == {"c3": "case-time"}


def test_workers_that_cannot_start_end_the_batch(scans, tmp_path, spoiled):
    spoiled.write_text("import os; os._exit(3)")
    with pytest.raises(ResourceError, match="ended before it was ready: exit code 3") as refused:
        run(items(scans / "cases.csv"), config_for(tmp_path / "out"), workers=1)
    assert refused.value.reason == "worker"


def test_a_case_short_of_memory_is_tried_again_alone(scans, tmp_path, spoiled):
    # The case fits only if its worker gets all the memory: half of it is not enough.
    what = "import resource; used = int(Path('/proc/self/status').read_text().split('VmData:')[1].split()[0])"
    what += "\n        room = resource.getrlimit(resource.RLIMIT_DATA)[0] - 1024 * used"
    what += "\n        if room < 2.5 * 2**30: raise MemoryError"
    spoiled.write_text(SPOILED.format(what=what))
    out = tmp_path / "out"
    ended = run(items(scans / "cases.csv"), config_for(out), workers=2, memory=4 << 30)
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
    """The worker processes of a batch."""
    children = psutil.Process(process).children(recursive=True)
    return [child for child in children if "medseg.batch_processing.worker" in " ".join(child.cmdline())]


def test_a_worker_that_is_killed_loses_nothing(scans, tmp_path):
    out, killed = tmp_path / "out", []

    def show(event: dict[str, object]) -> None:
        if event["event"] == "case" and not killed:
            killed.extend(workers_of(os.getpid())[:1])
            for worker in killed:
                worker.kill()

    ended = run(items(scans / "cases.csv"), config_for(out), workers=2, show=show)
    assert killed
    assert (ended.done, ended.failed) == (6, 0)


def test_masks_do_not_depend_on_the_number_of_workers_or_the_order(tmp_path):
    model = untrained(tiny()).save(tmp_path / "model.safetensors")
    found = []
    for number in range(4):
        scan = Thorax.random(number).scan(default_grid((8.0, 9.0, 12.0), "LPS"), seed=number)
        found.append(Item(f"c{number}", (scan.save(tmp_path / f"{number}.nii.gz"),)))
    one, two = tmp_path / "one", tmp_path / "two"
    run(found, config_for(one, models=(str(model),)), workers=1)
    run(found[::-1], config_for(two, models=(str(model),)), workers=2)
    for item in found:
        mask = f"masks/{item.id}.nii.gz"
        assert (one / mask).read_bytes() == (two / mask).read_bytes()


def test_models_that_cannot_be_loaded_end_the_batch_before_it_begins(scans, tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense" * 100)
    from medseg.errors import ModelRefused

    with pytest.raises(ModelRefused):
        run(
            items(scans / "cases.csv"),
            config_for(tmp_path / "out", models=(str(tmp_path / "bad.safetensors"),)),
            workers=1,
        )


def test_a_system_without_memory_limits_is_named(monkeypatch):
    monkeypatch.setattr(process_pool.processes, "can_limit_growth", lambda: False)
    monkeypatch.setattr(ProcessPool, "_start", lambda *_, **__: None)
    size = PoolSize(workers=1, ahead=False, worker_bytes=1 << 30, total_bytes=1 << 30)
    with collect_notices() as notices:
        ProcessPool(BatchConfig(("threshold",), "out", "scratch"), size, case_seconds=60)
    assert [notice.reason for notice in notices] == ["memory-not-limited"]
