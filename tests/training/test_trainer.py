from __future__ import annotations

import csv
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch
from support.worlds import phantoms, tiny

from medseg.errors import InputRefused, InputWarning, ModelRefused, UsageError
from medseg.images.volume import Mask
from medseg.inference.model import Model
from medseg.inference.segmenter import Segmenter
from medseg.phantom.thorax import Thorax, default_grid
from medseg.training import trainer
from medseg.training.trainer import Hardware, TrainingOptions, train

GRID = default_grid((8.0, 9.0, 12.0))
pytestmark = pytest.mark.filterwarnings("ignore:.*no case has split val:medseg.errors.InputWarning")


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """Two training patients and one for validation."""
    return phantoms(tmp_path_factory.mktemp("cases"), "train", "train", "val")


def equal(a: Model, b: Model) -> bool:
    return all(torch.equal(a.folds[0][name], b.folds[0][name]) for name in a.folds[0])


def curve(run: Path) -> list[dict[str, str]]:
    """The rows of a run's history without what the clock decides."""
    with (run / "history.csv").open() as file:
        return [{k: v for k, v in r.items() if k not in ("seconds", "waiting")} for r in csv.DictReader(file)]


@pytest.mark.parametrize("dims", [2, 3])
def test_training_gives_one_model_file_that_segments(cases, tmp_path, dims):
    ends = []
    recipe = tiny(dims)
    model = train(recipe, cases, tmp_path / "run", hardware=Hardware(workers=0), on_epoch=ends.append)
    saved = Model.load(tmp_path / "run" / "model.safetensors")
    assert equal(saved, model)
    assert saved.recipe == recipe
    assert saved.provenance["train_cases"] == ["case_0", "case_1"]
    assert saved.provenance["val_cases"] == ["case_2"]
    assert [end.epoch for end in ends] == [1, 2]
    assert ends[-1].seconds_left == 0
    with (tmp_path / "run" / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(0 <= float(row["val_dice_left_lung"]) <= 1 for row in rows)
    assert all(0 < float(row["val_loss"]) < 10 for row in rows)
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))
    assert Segmenter(saved)(Thorax().scan(GRID)).grid == GRID


@pytest.mark.slow
def test_it_learns_the_phantom(cases, tmp_path):
    recipe = tiny(
        labels=[{"name": "lungs", "values": [1, 2, 3, 4]}],
        patch={"size": [32, 32, 24]},
        network={"widths": [8, 16, 32]},
        train={"epochs": 3, "steps_per_epoch": 20, "validate_every": 3, "learning_rate": 0.01},
        augment={"probability": 0},
    )
    ends = []
    train(recipe, cases, tmp_path / "run", hardware=Hardware(workers=0), on_epoch=ends.append)
    assert ends[-1].dice is not None
    assert ends[-1].dice["lungs"] > 0.9


def test_resumed_training_equals_uninterrupted_training(cases, tmp_path):
    recipe = tiny(train={"epochs": 4, "steps_per_epoch": 2}, network={"norm": "batch", "dropout": 0.1})
    others = set(multiprocessing.active_children())
    whole = train(recipe, cases, tmp_path / "whole", hardware=Hardware(workers=0))

    class Stop(Exception):
        pass

    def stop(end: trainer.EpochEnd) -> None:
        if end.epoch == 3:  # its checkpoint is not written yet: epoch 3 is done again
            raise Stop

    with pytest.raises(Stop):
        train(recipe, cases, tmp_path / "parts", hardware=Hardware(workers=0), on_epoch=stop)
    resumed = train(recipe, cases, tmp_path / "parts", hardware=Hardware(workers=1), resume=True)
    assert equal(whole, resumed)
    assert equal(whole, train(recipe, cases, tmp_path / "workers", hardware=Hardware(workers=1)))
    assert set(multiprocessing.active_children()) <= others  # no worker is left behind
    curves = []
    for name in ("whole", "parts"):
        curves.append(curve(tmp_path / name))
    assert curves[0] == curves[1]


def test_same_seed_same_weights_and_another_seed_others(cases, tmp_path):
    runs = [
        train(tiny(train={"epochs": 1, "seed": seed}), cases, tmp_path / str(i), hardware=Hardware(workers=0))
        for i, seed in enumerate((3, 3, 4))
    ]
    assert equal(runs[0], runs[1])
    assert not equal(runs[0], runs[2])


def test_the_global_random_state_is_left_alone(cases, tmp_path):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    train(tiny(train={"epochs": 1}), cases, tmp_path / "run", hardware=Hardware(workers=0))
    assert torch.equal(before, torch.get_rng_state())


def test_it_stops_early_and_keeps_the_best(cases, tmp_path, monkeypatch):
    dice = iter([0.5, 0.9, 0.3, 0.2, 0.1] * 2)
    monkeypatch.setattr("medseg.training.lightning_module._dice", lambda found, truth, known: next(dice))
    recipe = tiny(
        labels=[{"name": "chest", "values": [1, 2, 3, 4, 5, 6, 7]}],
        train={"epochs": 5, "steps_per_epoch": 1, "patience": 2},
    )
    ends = []
    model = train(recipe, cases, tmp_path / "run", hardware=Hardware(workers=0), on_epoch=ends.append)
    # Best after epoch 2; two validations without a better one end it after epoch 4.
    assert [end.epoch for end in ends] == [1, 2, 3, 4]
    assert model.provenance["epoch"] == 2


def test_a_time_limit_ends_it_with_a_model(cases, tmp_path):
    recipe = tiny(train={"epochs": 500, "steps_per_epoch": 1, "validate_every": 1})
    model = train(
        recipe, cases, tmp_path / "run", hardware=Hardware(workers=0), options=TrainingOptions(max_seconds=2)
    )
    assert model.provenance["epoch"] < 500
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_without_validation_the_last_weights_are_the_model(cases, tmp_path):
    fitting = [c for c in cases if c.split == "train"]
    with pytest.warns(InputWarning, match="no case has split val"):
        model = train(tiny(), fitting, tmp_path / "run", hardware=Hardware(workers=0))
    assert model.provenance["epoch"] == 2
    assert model.provenance["val_cases"] == []


def test_folders_in_use_and_nothing_to_resume_are_refused(cases, tmp_path):
    recipe = tiny(train={"epochs": 1})
    with pytest.raises(UsageError, match="nothing to resume"):
        train(recipe, cases, tmp_path / "run", resume=True)
    train(recipe, cases, tmp_path / "run", hardware=Hardware(workers=0))
    with pytest.raises(UsageError, match="already holds a training") as refused:
        train(recipe, cases, tmp_path / "run")
    assert refused.value.reason == "has-results"
    with pytest.raises(UsageError, match="recipe has changed"):
        train(tiny(train={"epochs": 9}), cases, tmp_path / "run", hardware=Hardware(workers=0), resume=True)
    with pytest.raises(UsageError, match="the first is case_0: train, now not in the manifest"):
        train(recipe, cases[1:], tmp_path / "run", hardware=Hardware(workers=0), resume=True)
    with pytest.raises(UsageError, match="no case has split 'train'"):
        train(recipe, cases[2:], tmp_path / "other")


def test_checkpoints_that_are_damaged_or_not_ours_are_not_resumed(cases, tmp_path):
    recipe = tiny(train={"epochs": 1})
    train(recipe, [cases[0], cases[2]], tmp_path / "run", hardware=Hardware(workers=0))
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    whole = last.read_bytes()
    held = torch.load(last, weights_only=True)
    last.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelRefused, match="not a PyTorch checkpoint"):
        train(recipe, cases[:1], tmp_path / "run", hardware=Hardware(workers=0), resume=True)
    for foreign in ({"state_dict": {}}, held | {"epoch": "1"}, held | {"medseg": 1}, held | {"x": Path.home}):
        torch.save(foreign, last)
        with pytest.raises(ModelRefused, match=r"not a checkpoint of `medseg train`|unsafe"):
            train(recipe, cases[:1], tmp_path / "run", hardware=Hardware(workers=0), resume=True)


def test_a_loss_that_is_not_finite_stops_with_a_remedy(cases, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "medseg.training.lightning_module.build_loss",
        lambda rules: lambda out, truth, table: out.sum() * float("nan"),
    )
    with pytest.raises(
        UsageError, match=r"loss is nan in epoch 1, with patches of case_0, case_1\n.*learning_rate"
    ):
        train(tiny(), cases, tmp_path / "run", hardware=Hardware(workers=0))


def test_a_training_that_failed_before_its_first_epoch_can_be_started_again(cases, tmp_path):
    lost = cases[0].model_copy(update={"images": (tmp_path / "gone.nii.gz",)})
    recipe = tiny(train={"epochs": 1})
    with pytest.raises(InputRefused, match="no such file"):
        train(recipe, [lost], tmp_path / "run", hardware=Hardware(workers=0))
    assert train(recipe, cases, tmp_path / "run", hardware=Hardware(workers=0)).provenance["epoch"] == 1


@pytest.mark.filterwarnings("ignore:bf16 is very slow:medseg.errors.InputWarning")  # on some processors
@pytest.mark.parametrize(
    "changes",
    [{"schedule": "poly", "ema_decay": 0.9}, {"accumulate": 2, "precision": "bf16"}, {"deterministic": True}],
)
def test_every_training_option_gives_a_model_that_segments(cases, tmp_path, changes):
    model = train(tiny(train=changes), cases, tmp_path / "run", hardware=Hardware(workers=0))
    assert not torch.are_deterministic_algorithms_enabled()
    assert Segmenter(model)(Thorax().scan(GRID)).grid == GRID


def test_the_averaged_weights_are_the_model(cases, tmp_path):
    plain = train(tiny(), cases, tmp_path / "plain", hardware=Hardware(workers=0))
    averaged = train(tiny(train={"ema_decay": 0.99}), cases, tmp_path / "ema", hardware=Hardware(workers=0))
    assert curve(tmp_path / "plain")[1]["train_loss"] == curve(tmp_path / "ema")[1]["train_loss"]
    assert not equal(plain, averaged)


def test_fp16_is_refused_on_a_cpu(cases, tmp_path):
    with pytest.raises(UsageError, match="fp16 needs a GPU"):
        train(tiny(train={"precision": "fp16"}), cases, tmp_path / "run", hardware=Hardware("cpu"))


def test_bf16_on_a_processor_without_it_gives_a_warning(cases, tmp_path, monkeypatch):
    monkeypatch.setattr("medseg.training.hardware._capability", lambda: "AVX2")
    rules = tiny(train={"precision": "bf16"})
    with pytest.warns(InputWarning, match="train.precision fp32 is faster here"):
        train(rules, cases, tmp_path / "run", hardware=Hardware("cpu"))


def test_unavailable_hardware_is_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert Hardware().kind == "cpu"
    for wrong in ({"device": "gpu"}, {"device": "cuda:9"}, {"devices": 0}, {"nodes": 0}, {"workers": -1}):
        with pytest.raises(UsageError) as caught:
            Hardware(**wrong)
        assert caught.value.reason == "device"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert Hardware().kind == "gpu"
    with pytest.raises(UsageError, match=r"this machine has 1 GPU"):
        Hardware(devices=2)


def test_operations_without_a_deterministic_implementation_are_named(cases, tmp_path, monkeypatch):
    def refused(self, batch, _):
        raise RuntimeError("max_pool3d_backward does not have a deterministic implementation, but you set")

    monkeypatch.setattr("medseg.training.lightning_module.SegmentationModule.training_step", refused)
    with pytest.raises(UsageError, match=r"(?s)max_pool3d_backward.*switch it off"):
        train(tiny(), cases, tmp_path / "run", hardware=Hardware(workers=0))


def test_a_training_resumed_before_its_first_epoch_starts_again(cases, tmp_path):
    recipe = tiny(train={"epochs": 1})
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text(recipe.yaml())
    model = train(recipe, cases, tmp_path / "run", hardware=Hardware(workers=0), resume=True)
    assert model.provenance["epoch"] == 1


def test_patches_augmented_on_the_device_are_those_of_the_loader(cases, tmp_path):
    from medseg.training.case_cache import cached
    from medseg.training.dataloaders import patches
    from medseg.training.lightning_module import SegmentationModule
    from medseg.training.patches import Patches

    recipe = tiny()
    prepared = [cached(case, recipe, tmp_path) for case in cases[:2]]
    rules = {"workers": 0, "first_epoch": 0, "rank": 0, "world_size": 1}
    augmented, plain = (next(iter(patches(prepared, recipe, augmented=a, **rules))) for a in (True, False))

    class Trainer:
        training = True

    task = SegmentationModule(recipe, "", Patches(prepared, recipe))
    task._trainer = Trainer()
    task._fabric = None
    changed = task.on_after_batch_transfer(plain, 0)
    assert not torch.equal(changed["image"], plain["image"])
    assert torch.equal(changed["image"], augmented["image"])
    assert torch.equal(changed["label"], augmented["label"])


def test_a_case_that_is_in_two_splits_is_refused(cases, tmp_path):
    twice = [*cases, cases[0].model_copy(update={"id": "again", "patient": "again", "split": "val"})]
    with pytest.raises(InputRefused, match="duplicate-across-splits"):
        train(tiny(), twice, tmp_path / "run", hardware=Hardware(workers=0))


@pytest.mark.filterwarnings("ignore:.*label-:medseg.errors.InputWarning")
@pytest.mark.parametrize("predicted", [False, True])
def test_validation_without_foreground_is_not_a_dice_of_0(cases, tmp_path, monkeypatch, predicted):
    """Healthy validation cases: the last weights are the model, and patience does not end the training."""
    empty = tmp_path / "empty.nii.gz"
    truth = Thorax().truth(GRID)
    Mask(np.zeros(GRID.shape, np.uint8), GRID, truth.labels).save(empty)
    healthy = cases[2].model_copy(update={"label": empty})

    def segment(self, image, seen=None):  # also a false positive measures no overlap
        mask = torch.zeros(len(self.recipe.labels), *image.shape[1:], dtype=torch.bool)
        mask[:, 0] = predicted
        return mask

    monkeypatch.setattr("medseg.training.lightning_module.SegmentationModule.segment", segment)
    recipe = tiny(train={"epochs": 4, "steps_per_epoch": 1, "patience": 2, "validate_every": 1})
    with pytest.warns(InputWarning, match="no validation case contains a label") as caught:
        model = train(recipe, [*cases[:2], healthy], tmp_path / "run", hardware=Hardware(workers=0))
    assert len([each for each in caught if "no validation case" in str(each.message)]) == 1
    assert model.provenance["epoch"] == 4
    assert [row["val_dice"] for row in curve(tmp_path / "run")] == ["nan"] * 4
