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
    assert checkpointing.find_resume_point(run).epochs_done == 3
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert names == ["best.ckpt", "last.ckpt", "previous.ckpt"]
    assert torch.load(run / "checkpoints" / "previous.ckpt", weights_only=True)["epoch"] == 1
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert "optimizer_states" not in best  # a third of the size


@pytest.mark.parametrize("damage", [truncated, flipped])
def test_a_damaged_checkpoint_is_skipped_with_a_warning_and_the_result_is_the_same(run, finished, damage):
    _, recipe, cases, model = finished
    damage(run / "checkpoints" / "last.ckpt")
    message = r"last\.ckpt is damaged .*continuing from previous\.ckpt, after epoch 2"
    with pytest.warns(InputWarning, match=message):
        again = train(recipe, cases, run, hardware=Hardware(workers=0), resume=True)
    assert all(torch.equal(again.folds[0][name], model.folds[0][name]) for name in model.folds[0])


def test_two_damaged_checkpoints_are_refused(run):
    for name in ("last.ckpt", "previous.ckpt"):
        truncated(run / "checkpoints" / name)
    with pytest.raises(ModelRefused, match="not a PyTorch checkpoint") as caught:
        checkpointing.find_resume_point(run)
    assert caught.value.where.endswith("last.ckpt")


def test_a_damaged_best_checkpoint_does_not_become_the_model(run):
    flipped(run / "checkpoints" / "best.ckpt")
    with pytest.raises(ModelRefused, match="checksum"):
        checkpointing.load_chosen(run)


def test_a_run_without_an_epoch_has_no_model(tmp_path):
    assert checkpointing.find_resume_point(tmp_path) is None
    with pytest.raises(UsageError, match="no epoch was finished"):
        checkpointing.load_chosen(tmp_path)


def test_the_previous_checkpoint_is_kept_on_disks_without_hard_links(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError("no hard links")

    monkeypatch.setattr("pathlib.Path.hardlink_to", refused)
    for epoch in (0, 1):
        checkpointing.AtomicCheckpointIO().save_checkpoint({"epoch": epoch}, tmp_path / "last.ckpt")
    last, previous = (torch.load(tmp_path / f"{name}.ckpt") for name in ("last", "previous"))
    assert (last["epoch"], previous["epoch"]) == (1, 0)


def test_a_finished_training_does_not_continue(run, finished):
    _, recipe, cases, model = finished
    before = (run / "history.csv").read_text()
    again = train(recipe, cases, run, hardware=Hardware(workers=0), resume=True)
    assert (run / "history.csv").read_text() == before
    assert again.digest == model.digest


def test_the_time_limit_looks_ahead(tmp_path):
    kept = checkpointing.CheckpointCallback(tmp_path, tiny().train, max_seconds=100.0)

    class Trainer:
        class strategy:
            broadcast = staticmethod(lambda value: value)

    kept.seconds, kept.longest = 80.0, 10.0
    assert not kept._is_over(Trainer, 1)
    kept.seconds = 91.0  # another epoch would end at 101
    assert kept._is_over(Trainer, 1)
