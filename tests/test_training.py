from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from worlds import tiny

from medseg import training
from medseg.dataset import EpochSampler, Patches, cached, content_digest, window
from medseg.errors import InputRefused, ModelRefused, UsageError
from medseg.manifest import Case
from medseg.model import Model
from medseg.phantom import Thorax, default_grid
from medseg.segmenter import Segmenter
from medseg.training import learning_rate_factor, train

GRID = default_grid((8.0, 9.0, 12.0))


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> list[Case]:
    """Two training patients and one for validation."""
    folder = tmp_path_factory.mktemp("cases")
    made = []
    for number, split in enumerate(("train", "train", "val")):
        patient = Thorax.random(number)
        image, label = folder / f"{number}.nii.gz", folder / f"{number}_truth.nii.gz"
        patient.scan(GRID, seed=number).save(image)
        patient.truth(GRID).save(label)
        made.append(Case(id=f"case_{number}", images=(image,), label=label, split=split))
    return made


def equal(a: Model, b: Model) -> bool:
    return all(torch.equal(a.folds[0][name], b.folds[0][name]) for name in a.folds[0])


@pytest.mark.parametrize("dims", [2, 3])
def test_training_gives_one_model_file_that_segments(cases, tmp_path, dims):
    ends = []
    recipe = tiny(dims)
    model = train(recipe, cases, tmp_path / "run", workers=0, on_epoch=ends.append)
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
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))
    assert Segmenter(saved)(Thorax().scan(GRID)).grid == GRID


@pytest.mark.slow
def test_it_learns_the_phantom(cases, tmp_path):
    recipe = tiny(
        labels=[{"name": "lungs", "values": [1, 2, 3, 4]}],
        patch={"size": [48, 40, 32]},
        network={"widths": [8, 16, 32]},
        train={"epochs": 3, "steps_per_epoch": 20, "validate_every": 3, "learning_rate": 0.01},
        augment={"probability": 0},
    )
    ends = []
    train(recipe, cases, tmp_path / "run", workers=0, on_epoch=ends.append)
    assert ends[-1].dice is not None
    assert ends[-1].dice["lungs"] > 0.9


def test_resumed_training_equals_uninterrupted_training(cases, tmp_path):
    recipe = tiny(train={"epochs": 4, "steps_per_epoch": 2}, network={"norm": "batch", "dropout": 0.1})
    whole = train(recipe, cases, tmp_path / "whole", workers=0)

    class Stop(Exception):
        pass

    def stop(end: training.EpochEnd) -> None:
        if end.epoch == 3:  # its checkpoint is not written yet: epoch 3 is done again
            raise Stop

    with pytest.raises(Stop):
        train(recipe, cases, tmp_path / "parts", workers=0, on_epoch=stop)
    resumed = train(recipe, cases, tmp_path / "parts", workers=1, resume=True)
    assert equal(whole, resumed)
    assert equal(whole, train(recipe, cases, tmp_path / "workers", workers=1))
    curves = []
    for name in ("whole", "parts"):
        with (tmp_path / name / "history.csv").open() as file:
            curves.append([{k: v for k, v in r.items() if k != "seconds"} for r in csv.DictReader(file)])
    assert curves[0] == curves[1]


def test_same_seed_same_weights_and_another_seed_others(cases, tmp_path):
    runs = [
        train(tiny(train={"epochs": 1, "seed": seed}), cases, tmp_path / str(i), workers=0)
        for i, seed in enumerate((3, 3, 4))
    ]
    assert equal(runs[0], runs[1])
    assert not equal(runs[0], runs[2])


def test_the_global_random_state_is_left_alone(cases, tmp_path):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    train(tiny(train={"epochs": 1}), cases, tmp_path / "run", workers=0)
    assert torch.equal(before, torch.get_rng_state())


def test_it_stops_early_and_keeps_the_best(cases, tmp_path, monkeypatch):
    dice = iter([0.5, 0.9, 0.3, 0.2, 0.1] * 2)
    monkeypatch.setattr(training, "_dice", lambda found, truth: next(dice))
    recipe = tiny(
        labels=[{"name": "lungs", "values": [1, 2]}],
        train={"epochs": 5, "steps_per_epoch": 1, "patience": 2},
    )
    ends = []
    model = train(recipe, cases, tmp_path / "run", workers=0, on_epoch=ends.append)
    # Best after epoch 2; two validations without a better one end it after epoch 4.
    assert [end.epoch for end in ends] == [1, 2, 3, 4]
    assert model.provenance["epoch"] == 2


def test_a_time_limit_ends_it_with_a_model(cases, tmp_path):
    recipe = tiny(train={"epochs": 500, "steps_per_epoch": 1, "validate_every": 1})
    model = train(recipe, cases, tmp_path / "run", workers=0, max_seconds=2)
    assert model.provenance["epoch"] < 500
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_without_validation_the_last_weights_are_the_model(cases, tmp_path):
    model = train(tiny(), [c for c in cases if c.split == "train"], tmp_path / "run", workers=0)
    assert model.provenance["epoch"] == 2
    assert model.provenance["val_cases"] == []


def test_folders_in_use_and_nothing_to_resume_are_refused(cases, tmp_path):
    recipe = tiny(train={"epochs": 1})
    with pytest.raises(UsageError, match="nothing to resume"):
        train(recipe, cases, tmp_path / "run", resume=True)
    train(recipe, cases, tmp_path / "run", workers=0)
    with pytest.raises(UsageError, match="holds a training already"):
        train(recipe, cases, tmp_path / "run")
    with pytest.raises(UsageError, match="recipe has changed"):
        train(tiny(train={"epochs": 9}), cases, tmp_path / "run", workers=0, resume=True)
    with pytest.raises(UsageError, match="data has changed"):
        train(recipe, cases[1:], tmp_path / "run", workers=0, resume=True)
    with pytest.raises(UsageError, match="no case has split 'train'"):
        train(recipe, cases[2:], tmp_path / "other")


def test_checkpoints_that_are_damaged_or_not_ours_are_not_resumed(cases, tmp_path):
    recipe = tiny(train={"epochs": 1})
    train(recipe, cases[:1], tmp_path / "run", workers=0)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    whole = last.read_bytes()
    held = torch.load(last, weights_only=True)
    last.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelRefused, match="not a PyTorch checkpoint"):
        train(recipe, cases[:1], tmp_path / "run", workers=0, resume=True)
    for foreign in ({"state_dict": {}}, held | {"epoch": "1"}, held | {"medseg": 1}, held | {"x": Path.home}):
        torch.save(foreign, last)
        with pytest.raises(ModelRefused, match=r"no checkpoint of `medseg train`|unsafe"):
            train(recipe, cases[:1], tmp_path / "run", workers=0, resume=True)


def test_a_loss_that_is_not_finite_stops_with_a_remedy(cases, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "build_loss", lambda rules: lambda out, truth: out.sum() * float("nan"))
    with pytest.raises(UsageError, match=r"loss is nan in epoch 1\n.*learning_rate"):
        train(tiny(), cases, tmp_path / "run", workers=0)


def test_learning_rate_rises_over_a_tenth_then_falls_to_zero():
    factors = [learning_rate_factor(step, 100) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[10] == 1
    assert factors[55] == pytest.approx(0.5)  # half way down the cosine
    assert factors[100] == pytest.approx(0)
    assert learning_rate_factor(0, 1) == 1


def test_the_cache_is_keyed_by_content_and_recipe(cases, tmp_path):
    recipe = tiny()
    first = cached(cases[0], recipe, tmp_path)
    made = (first.folder / "image.npy").stat().st_mtime_ns
    assert cached(cases[0], tiny(train={"seed": 9}), tmp_path) == first
    assert (first.folder / "image.npy").stat().st_mtime_ns == made
    other = cached(cases[0], tiny(prepare={"spacing_mm": [9, 9, 9]}), tmp_path)
    assert other.folder != first.folder
    swapped = cases[0].model_copy(update={"label": cases[1].label})
    assert cached(swapped, recipe, tmp_path).folder != first.folder
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        {first.folder.name, other.folder.name, cached(swapped, recipe, tmp_path).folder.name}
    )


def test_unreadable_training_cases_are_named(cases, tmp_path):
    lost = cases[0].model_copy(update={"images": (tmp_path / "gone.nii.gz",)})
    with pytest.raises(InputRefused, match="no such file"):
        cached(lost, tiny(), tmp_path)
    with pytest.raises(UsageError, match="needs a label"):
        cached(cases[0].model_copy(update={"label": None}), tiny(), tmp_path)
    elsewhere = tmp_path / "coarser.nii.gz"
    Thorax().truth(default_grid((8.0, 9.0, 16.0))).save(elsewhere)
    with pytest.raises(InputRefused, match=r"case_0.*\n?.*not on the scan's grid"):
        cached(cases[0].model_copy(update={"label": elsewhere}), tiny(), tmp_path)


def test_the_digest_sees_the_file_that_holds_the_voxels(tmp_path):
    Thorax().scan(default_grid((30.0, 30.0, 30.0))).save(tmp_path / "a.mhd")
    before = content_digest(tmp_path / "a.mhd")
    data = next(p for p in tmp_path.iterdir() if p.suffix != ".mhd")
    data.write_bytes(data.read_bytes()[::-1])
    assert content_digest(tmp_path / "a.mhd") != before


def test_a_training_that_never_began_may_begin_again(cases, tmp_path):
    lost = cases[0].model_copy(update={"images": (tmp_path / "gone.nii.gz",)})
    recipe = tiny(train={"epochs": 1})
    with pytest.raises(InputRefused, match="no such file"):
        train(recipe, [lost], tmp_path / "run", workers=0)
    assert train(recipe, cases, tmp_path / "run", workers=0).provenance["epoch"] == 1


def test_folders_have_a_content_digest_too(tmp_path):
    folder = tmp_path / "series"
    folder.mkdir()
    (folder / "b").write_bytes(b"2")
    (folder / "a").write_bytes(b"1")
    before = content_digest(folder)
    (folder / "a").write_bytes(b"3")
    assert content_digest(folder) != before


@pytest.mark.parametrize("dims", [2, 3])
def test_patches_depend_on_seed_epoch_and_number_only(cases, tmp_path, dims):
    recipe = tiny(dims)
    prepared = [cached(case, recipe, tmp_path) for case in cases[:2]]
    a, b = Patches(prepared, recipe), Patches(prepared, recipe)
    a[0, 5], a[3, 1]  # what was drawn before must not matter
    for at in ((0, 0), (1, 3)):
        assert torch.equal(a[at]["image"], b[at]["image"])
        assert torch.equal(a[at]["label"], b[at]["label"])
    assert not torch.equal(a[0, 0]["image"], a[1, 0]["image"])
    assert a[0, 0]["image"].shape == (recipe.in_channels, *recipe.patch.size)
    assert set(np.unique(a[0, 0]["label"].numpy())) <= {0.0, 1.0}


def test_foreground_patches_are_centred_on_a_label(cases, tmp_path):
    plain = {"rotate_degrees": 0, "scale": 0, "noise_sd": 0, "gamma": 0, "brightness": 0, "contrast": 0}
    recipe = tiny(train={"foreground_fraction": 1.0}, augment=plain, patch={"size": [8, 8, 8]})
    patches = Patches([cached(cases[0], recipe, tmp_path)], recipe)
    assert all(patches[0, n]["label"].any() for n in range(20))


def test_windows_by_hand():
    values = torch.arange(10.0)[None]
    cut = lambda at, size: window(values, np.array([at]), (size,), fill=None)[0].tolist()  # noqa: E731
    assert cut(5, 4) == [3, 4, 5, 6]
    assert cut(0, 4) == [0, 1, 2, 3]  # moved inside
    assert cut(9, 4) == [6, 7, 8, 9]
    assert cut(5, 12) == [0, *range(10), 0]  # padded with the smallest value
    assert window(values, np.array([5]), (12,), fill=7.0)[0].tolist() == [7, *range(10), 7]


def test_the_sampler_yields_epoch_and_number():
    sampler = EpochSampler(3, first=2)
    assert (list(sampler), len(sampler)) == ([(2, 0), (2, 1), (2, 2)], 3)
    assert list(sampler) == [(3, 0), (3, 1), (3, 2)]


def test_dice_of_the_validation_by_hand():
    found, truth = torch.tensor([1, 1, 0, 0]).bool(), torch.tensor([1, 0, 1, 0]).bool()
    assert training._dice(found, truth) == 0.5
    assert math.isnan(training._dice(found & ~found, truth & ~truth))
