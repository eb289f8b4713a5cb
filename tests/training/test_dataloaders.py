from __future__ import annotations

import multiprocessing
from types import SimpleNamespace

import pytest
import torch
from support.worlds import phantoms, tiny

from medseg.errors import ResourceError
from medseg.training import dataloaders
from medseg.training.case_cache import cached
from medseg.training.dataloaders import EpochSampler, Loader, patches, scans
from medseg.training.patches import Patches


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Three prepared cases."""
    folder = tmp_path_factory.mktemp("cases")
    return [cached(case, tiny(), folder / "cache") for case in phantoms(folder, "train", "train", "val")]


def test_the_sampler_yields_epoch_and_number():
    sampler = EpochSampler(3, 1, first=2)
    assert (list(sampler), len(sampler)) == ([(2, 0), (2, 1), (2, 2)], 3)
    assert list(sampler) == [(3, 0), (3, 1), (3, 2)]


def test_several_processes_share_every_step():
    # Two steps of four patches: 0 1 2 3 | 4 5 6 7; two processes take two patches of each step.
    parts = [[number for _, number in EpochSampler(2, 2, rank=rank, world_size=2)] for rank in (0, 1)]
    assert parts == [[0, 1, 4, 5], [2, 3, 6, 7]]


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_the_same_with_and_without_workers(prepared, workers):
    rules = {"workers": workers, "first_epoch": 1, "augmented": True, "rank": 0, "world_size": 1}
    batches = list(patches(prepared, tiny(train={"accumulate": 2}), **rules))
    assert len(batches) == 6  # 3 steps of 2 batches
    direct = Patches(prepared, tiny())
    assert torch.equal(batches[1]["image"][0], direct[1, 2]["image"])
    assert batches[1]["case"] == [direct[1, 2]["case"], direct[1, 3]["case"]]
    assert batches[1]["seed"].tolist() == [direct[1, 2]["seed"], direct[1, 3]["seed"]]


def test_a_closed_loader_leaves_no_process_behind_and_can_be_used_again(prepared):
    before = set(multiprocessing.active_children())
    loader = Loader(Patches(prepared, tiny()), EpochSampler(3, 2), workers=1)
    loader.close()  # nothing has begun
    for _ in range(2):
        assert len(list(loader)) == 3
        assert len(set(multiprocessing.active_children()) - before) == 1
        loader.close()
        assert set(multiprocessing.active_children()) <= before


def test_the_waiting_time_is_measured_in_the_loader(prepared, monkeypatch):
    now = 0.0
    monkeypatch.setattr(dataloaders, "time", SimpleNamespace(monotonic=lambda: now))

    class Slow(Patches):
        def __getitem__(self, at):
            nonlocal now
            now += 0.25
            return super().__getitem__(at)

    loader = Loader(Slow(prepared, tiny()), EpochSampler(3, 2), workers=0)
    for _ in loader:
        now += 5  # the network's work does not count
    assert loader.waited_seconds == 3 * 2 * 0.25


def test_every_validation_scan_is_measured_by_one_process(prepared):
    cases = [[scan["case"] for scan in scans(prepared, rank=rank, world_size=2)] for rank in (0, 1)]
    assert cases == [["case_0", "case_2"], ["case_1"]]
    few = [[scan["case"] for scan in scans(prepared[:1], rank=rank, world_size=2)] for rank in (0, 1)]
    assert few == [["case_0"], ["case_0"]]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (
            "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible",
            "shared-memory",
        ),
        (
            "Caught RuntimeError in worker process 0.\nunable to write to file </torch_7_1>:",
            "shared-memory",
        ),
        ("unable to allocate shared memory(shm) for file </torch_7_1>: Success (0)", "shared-memory"),
        ("DataLoader worker (pid 7) is killed by signal: Killed. ", "memory"),
    ],
)
def test_the_death_of_a_worker_is_explained(message, reason):
    with pytest.raises(ResourceError) as caught:
        dataloaders.raise_worker_error(RuntimeError(message))
    assert caught.value.reason == reason
    assert "--workers" in caught.value.remedy
    dataloaders.raise_worker_error(RuntimeError("something else"))
