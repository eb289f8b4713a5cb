from __future__ import annotations

import shutil
import zipfile

import pytest
import torch
from support.worlds import phantoms, tiny

from medseg.errors import InputWarning, ModelRefused, UsageError
from medseg.training import checkpointing
from medseg.training.trainer import Hardware, train


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of three epochs, its recipe and cases."""
    folder = tmp_path_factory.mktemp("run")
    recipe, cases = tiny(train={"epochs": 3, "steps_per_epoch": 1}), phantoms(folder, "train", "val")
    model = train(recipe, cases, folder / "run", hardware=Hardware(workers=0))
    return folder / "run", recipe, cases, model


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the run, to be damaged."""
    shutil.copytree(finished[0], tmp_path / "run")
    return tmp_path / "run"


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path):
    """One bit of a tensor changed, which torch.load does not notice."""
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    data[largest.header_offset + 200] ^= 1
    path.write_bytes(data)


def test_the_last_two_epochs_are_kept(run):
    assert checkpointing.resumption(run).epochs_done == 3
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert names == ["best.ckpt", "last.ckpt", "previous.ckpt"]
    assert torch.load(run / "checkpoints" / "previous.ckpt", weights_only=True)["epoch"] == 1
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert "optimizer_states" not in best  # a third of the size


@pytest.mark.parametrize("damage", [truncated, flipped])
def test_a_damaged_checkpoint_is_passed_over_loudly_and_the_end_is_the_same(run, finished, damage):
    _, recipe, cases, model = finished
    damage(run / "checkpoints" / "last.ckpt")
    told = r"last\.ckpt is damaged .*going on from previous\.ckpt, after epoch 2"
    with pytest.warns(InputWarning, match=told):
        again = train(recipe, cases, run, hardware=Hardware(workers=0), resume=True)
    assert all(torch.equal(again.folds[0][name], model.folds[0][name]) for name in model.folds[0])


def test_two_damaged_checkpoints_are_refused(run):
    for name in ("last.ckpt", "previous.ckpt"):
        truncated(run / "checkpoints" / name)
    with pytest.raises(ModelRefused, match="not a PyTorch checkpoint") as caught:
        checkpointing.resumption(run)
    assert caught.value.where.endswith("last.ckpt")


def test_a_damaged_best_is_not_made_a_model(run):
    flipped(run / "checkpoints" / "best.ckpt")
    with pytest.raises(ModelRefused, match="checksum"):
        checkpointing.chosen(run)


def test_a_run_without_an_epoch_has_no_model(tmp_path):
    assert checkpointing.resumption(tmp_path) is None
    with pytest.raises(UsageError, match="no epoch was finished"):
        checkpointing.chosen(tmp_path)


def test_disks_without_hard_links_keep_the_previous_too(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError("no hard links")

    monkeypatch.setattr("pathlib.Path.hardlink_to", refused)
    for epoch in (0, 1):
        checkpointing.WholeFiles().save_checkpoint({"epoch": epoch}, tmp_path / "last.ckpt")
    last, previous = (torch.load(tmp_path / f"{name}.ckpt") for name in ("last", "previous"))
    assert (last["epoch"], previous["epoch"]) == (1, 0)


def test_a_run_that_ended_does_not_go_on(run, finished):
    _, recipe, cases, model = finished
    before = (run / "history.csv").read_text()
    again = train(recipe, cases, run, hardware=Hardware(workers=0), resume=True)
    assert (run / "history.csv").read_text() == before
    assert again.digest == model.digest


def test_the_time_limit_looks_ahead(tmp_path):
    kept = checkpointing.CheckpointCallback(tmp_path, tiny().train, most_seconds=100.0)

    class Trainer:
        class strategy:
            broadcast = staticmethod(lambda value: value)

    kept.seconds, kept.longest = 80.0, 10.0
    assert not kept._over(Trainer, 1)
    kept.seconds = 91.0  # another epoch would end at 101
    assert kept._over(Trainer, 1)
