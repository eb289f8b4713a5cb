"""One process that owns a device, here the CPU: several threads read ahead, and cases are written beside."""

from __future__ import annotations

import queue
import threading
from pathlib import Path

import pytest
from support.batches import config_for, run
from support.worlds import tiny, untrained

from medseg.batch_processing import process_pool, worker
from medseg.batch_processing.case_discovery import Item
from medseg.batch_processing.case_pipeline import CasePipeline
from medseg.batch_processing.process_pool import PoolSize
from medseg.batch_processing.summary import BatchSummary, waited_share
from medseg.inference.case_result import CaseResult
from medseg.phantom.thorax import Thorax, default_grid

SECONDS = 60


class Cases:
    """A pipeline of cases that are numbers; some must meet others, or time out."""

    shares_device = True

    def __init__(self, readers: int) -> None:
        self.together = threading.Barrier(readers)
        self.device, self.begun = threading.Lock(), [threading.Event() for _ in range(6)]

    def load(self, job):
        self.together.wait(SECONDS)  # only passes if so many cases are loaded at once
        return int(job.case)

    def finish(self, case):
        with self.device:
            self.begun[case].set()
        # A case is written while the next one is segmented.
        overlapped = case + 1 == len(self.begun) or self.begun[case + 1].wait(SECONDS)
        return [(case, overlapped)]


def test_readers_work_together_writing_overlaps_and_results_keep_their_order():
    jobs: queue.Queue[object] = queue.Queue()
    for case in range(6):
        jobs.put({"case": str(case), "images": [], "models": [0]})
    pipeline = Cases(readers=3)
    results = worker._results(pipeline, worker._cases(pipeline, jobs, 3))
    assert [next(results) for _ in range(6)] == [[(case, True)] for case in range(6)]


def test_masks_are_those_of_one_case_at_a_time(tmp_path, monkeypatch):
    model = untrained(tiny()).save(tmp_path / "model.safetensors")
    items = []
    for number in range(4):
        scan = Thorax.random(number).scan(default_grid((8.0, 9.0, 12.0), "LPS"), seed=number)
        items.append(Item(f"c{number}", (scan.save(tmp_path / f"{number}.nii.gz"),)))
    summary = run(items, config_for(tmp_path / "plain", models=(str(model),)), workers=1)
    assert summary.waited is not None
    shared = tmp_path / "shared"
    monkeypatch.setattr(CasePipeline, "shares_device", True)
    pipeline = CasePipeline(config_for(shared, models=(str(model),), scratch=str(tmp_path / "scratch")))
    jobs: queue.Queue[object] = queue.Queue()
    for item in items:
        jobs.put({"case": item.id, "images": [str(each) for each in item.images], "models": [0]})
    results = worker._results(pipeline, worker._cases(pipeline, jobs, 2))
    found = [result for _ in items for result in next(results)]
    assert [(each.case, each.status) for each in found] == [(item.id, "done") for item in items]
    assert ["wait" in each.seconds for each in found] == [False, True, True, True]
    for item in items:
        name = Path("masks") / f"{item.id}.nii.gz"
        assert (shared / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_a_gpu_gets_as_many_readers_as_cores_and_memory_allow(monkeypatch):
    monkeypatch.setattr(process_pool, "_cores", lambda: 16)

    def planned(gib: int, workers: int, on_gpu: bool = True) -> PoolSize:
        return PoolSize.planned(cases=99, workers=workers, memory_bytes=gib << 30, on_gpu=on_gpu)

    assert (planned(64, 1).ahead, planned(64, 1).jobs) == (8, 10)
    assert planned(64, 4).ahead == 4  # cores for each of four GPUs
    assert planned(3, 1).ahead == 3  # 2 GiB, and two more scans of half a GiB each
    assert (planned(64, 1, on_gpu=False).ahead, planned(64, 1, on_gpu=False).jobs) == (1, 2)
    assert (planned(1, 1).ahead, planned(1, 1).jobs) == (0, 1)


def test_the_limit_of_a_batch_by_hand():
    def case(name: str, **seconds: float) -> CaseResult:
        return CaseResult(name, "model", "done", seconds=seconds)

    # 1 s of waiting in 8 s; the first case followed none.
    share = waited_share([case("a", segment=9), case("b", wait=1, segment=3), case("c", wait=0, segment=4)])
    assert share == pytest.approx(1 / 8)
    assert BatchSummary(3, 0, 0, Path("r.csv"), waited=share).limit == "reading"
    assert BatchSummary(3, 0, 0, Path("r.csv"), waited=0.02).limit == "network"
    assert BatchSummary(1, 0, 0, Path("r.csv"), waited=waited_share([case("a", segment=9)])).limit == ""
