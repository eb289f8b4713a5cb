"""Ensembles: the mean of models of different recipes, on the scan's grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.commands import invoke
from support.worlds import phantoms, tiny, untrained

import medseg
from medseg.errors import UsageError
from medseg.images.grid import Grid
from medseg.images.volume import Source, Volume
from medseg.inference.ensemble_model import ensemble
from medseg.inference.model import Model
from medseg.inference.native_grid import restored, restored_planes
from medseg.inference.segmenter import Segmenter
from medseg.system.notices import collect_notices

CPU = {"device": "cpu", "engine": "torch"}
LUNGS = tiny().model_dump(mode="json")["labels"]


def scan() -> Volume:
    """A body of water with air around it and two cavities, on a grid that is not in RAS order."""
    rng = np.random.default_rng(3)
    array = np.full((40, 44, 30), -1000.0, dtype=np.float32)
    array[4:-4, 4:-4] = 40
    array[8:16, 10:30, 5:25] = array[24:32, 10:30, 5:25] = -850
    array += rng.normal(0, 20, array.shape).astype(np.float32)
    affine = np.diag([-8.0, -7.0, 9.0, 1.0])
    affine[:3, 3] = (100, 90, -50)
    return Volume(array, Grid(array.shape, affine), Source(modality="CT"))


def other(**parts: object) -> Model:
    """A 2D model with another spacing and the labels in another order."""
    flat = {"prepare": {"spacing_mm": [10, 9, 10]}, "network": {"widths": [4, 8]}, "labels": LUNGS[::-1]}
    return untrained(tiny(2, **{**flat, **parts}), seed=7)


def test_the_mask_is_that_of_the_mean_probabilities() -> None:
    models = [untrained(tiny(), folds=2), other()]
    both = ensemble(models)
    assert [each.folds for each in both.recipe.pipeline.members] == [2, 1]  # type: ignore[union-attr]
    found = Segmenter(both, **CPU).prepare(scan()).predict(probabilities=True)
    parts = [Segmenter(model, **CPU).prepare(scan()).predict(probabilities=True) for model in models]
    mean = {
        name: np.mean([part.probabilities[name] for part in parts], axis=0)
        for name in ("right_lung", "left_lung")
    }
    for name, values in mean.items():
        np.testing.assert_allclose(found.probabilities[name], values, atol=2e-6)
    # Overlapping labels: painted in the order of the first model's labels, those that reach one half.
    wanted = np.zeros(scan().grid.shape, dtype=np.uint8)
    for label in models[0].recipe.labels:
        wanted[mean[label.name] >= 0.5] = label.value
    sure = np.all([abs(values - 0.5) > 1e-5 for values in mean.values()], axis=0)
    np.testing.assert_array_equal(found.mask.array[sure], wanted[sure])
    assert sure.mean() > 0.99
    assert 0 < np.count_nonzero(wanted) < wanted.size


def test_rounded_channels_of_an_ensemble_are_told_once() -> None:
    two = {"channels": ["a", "b"]}
    both = ensemble([untrained(tiny(**two)), other(**two)])
    first = scan()
    grid = Grid(first.grid.shape, first.grid.affine + np.eye(4, k=3) * 0.3)
    with collect_notices() as notices:
        found = Segmenter(both, **CPU)([first, Volume(first.array, grid, first.source)])
    assert found.grid == first.grid
    assert [each.reason for each in notices].count("grid-rounded") == 1


def test_the_file_of_an_ensemble_is_used_by_name_and_engine(tmp_path: Path) -> None:
    for name, model in (("a", untrained(tiny())), ("b", other())):
        model.save(tmp_path / f"{name}.safetensors")
    scan().save(tmp_path / "scan.nii.gz")
    both = tmp_path / "both.safetensors"
    out, _ = invoke("ensemble", tmp_path / "a.safetensors", tmp_path / "b.safetensors", "-o", both)
    assert "mean probabilities of 2 models" in out
    assert Model.load(both).to_bytes() == both.read_bytes()
    read = medseg.read(tmp_path / "scan.nii.gz")
    wanted = Segmenter(both, **CPU)(read)
    assert Segmenter(both, device="cpu")(read).array.tolist() == wanted.array.tolist()
    invoke("segment", tmp_path / "scan.nii.gz", "-o", tmp_path / "mask.nii.gz", "--model", both)
    written = medseg.read_mask(tmp_path / "mask.nii.gz", wanted.labels)
    np.testing.assert_array_equal(written.array, wanted.array)
    invoke("ensemble", tmp_path / "a.safetensors", tmp_path / "b.safetensors", "-o", both)  # again


@pytest.mark.filterwarnings("ignore:.*belongs to no label:medseg.errors.InputWarning")
def test_batch_and_evaluation_take_an_ensemble(tmp_path: Path) -> None:
    (case,) = phantoms(tmp_path, "test")
    both = tmp_path / "both.safetensors"
    model = ensemble([untrained(tiny()), other()], both)
    wanted = Segmenter(both, device="cpu")(medseg.read(case.images[0]))
    scores = medseg.evaluate([case], tmp_path / "scores", model=both)
    assert scores.failures == {}
    written = medseg.read_mask(tmp_path / "scores" / "masks" / "case_0.nii.gz", wanted.labels)
    np.testing.assert_array_equal(written.array, wanted.array)
    invoke("batch", case.images[0], "-o", tmp_path / "batch", "--model", both)
    (mask,) = (tmp_path / "batch").rglob("*.nii.gz")
    np.testing.assert_array_equal(medseg.read_mask(mask, wanted.labels).array, wanted.array)
    assert model.digest in (tmp_path / "batch" / "results.csv").read_text()


def test_a_package_of_an_ensemble_gives_the_same_mask(tmp_path: Path) -> None:
    ensemble([untrained(tiny()), other()], tmp_path / "both.safetensors")
    package = medseg.export_model(tmp_path / "both.safetensors", tmp_path / "package")
    assert medseg.check_package(package.path).passed


def test_models_of_one_recipe_become_folds(tmp_path: Path) -> None:
    models = [untrained(tiny()), untrained(tiny(train={"epochs": 9}, name="longer"), folds=2, seed=1)]
    joined = ensemble(models, tmp_path / "joined.safetensors", name="joined")
    assert joined.recipe.pipeline is None
    assert joined.recipe.name == "joined"
    assert len(joined.folds) == 3
    assert joined.fold_digests() == (*models[0].fold_digests(), *models[1].fold_digests())


def test_exclusive_labels_take_the_most_probable() -> None:
    loss = {"loss": {"kind": "dice_ce"}, "labels": [{**LUNGS[0], "values": [1]}, {**LUNGS[1], "values": [2]}]}
    models = [untrained(tiny(**loss)), other(**{**loss, "labels": loss["labels"][::-1]})]  # type: ignore[index]
    found = Segmenter(ensemble(models), **CPU).prepare(scan()).predict(probabilities=True)
    shares = np.stack([found.probabilities[name] for name in ("right_lung", "left_lung")])
    order = np.argsort(np.concatenate([1 - shares.sum(0, keepdims=True), shares]), axis=0)
    clear = np.sort(np.concatenate([1 - shares.sum(0, keepdims=True), shares]), axis=0)
    sure = clear[-1] - clear[-2] > 1e-5
    np.testing.assert_array_equal(found.mask.array[sure], order[-1][sure])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": [{**LUNGS[0], "name": "heart"}, LUNGS[1]]}, "no label 'right_lung'.*the label 'heart'"),
        ({"channels": ["T1"]}, "channels are T1"),
        (
            {
                "labels": [{**LUNGS[0], "values": [1]}, {**LUNGS[1], "values": [2]}],
                "loss": {"kind": "dice_ce"},
            },
            "exclude each other",
        ),
    ],
)
def test_models_that_do_not_belong_together_are_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        ensemble([untrained(tiny()), other(**change)])
    assert caught.value.reason == "ensemble"


def test_an_ensemble_is_no_member_of_another(tmp_path: Path) -> None:
    both = ensemble([untrained(tiny()), other()])
    with pytest.raises(UsageError, match="section pipeline") as caught:
        ensemble([untrained(tiny()), both])
    assert caught.value.reason == "ensemble"
    with pytest.raises(UsageError, match="at least two"):
        ensemble([both])
    (tmp_path / "notes.safetensors").write_text("mine")
    with pytest.raises(UsageError) as caught:
        ensemble([untrained(tiny()), other()], tmp_path / "notes.safetensors")
    assert caught.value.reason == "foreign-file"


@pytest.mark.parametrize("thick", [1, 5, 64])
def test_portions_of_planes_are_those_of_the_whole(thick: int) -> None:
    rng = np.random.default_rng(0)
    prepared = Grid.from_spacing((12, 11, 13), (5.0, 6.0, 7.0))
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    affine[:3, 3] = (-11, 4, -9)  # partly outside
    target = Grid((40, 18, 29), affine)
    values = rng.random((2, 12, 11, 13), dtype=np.float32)
    planes = [(0, values[..., :4]), (4, values[..., 4:5]), (5, values[..., 5:])]
    found = list(restored_planes(planes, prepared, target, thick))
    assert [first for first, _ in found] == list(range(0, 29, thick))
    wanted = restored(planes, prepared, target, labels=2)
    np.testing.assert_allclose(np.concatenate([part for _, part in found], -1), wanted, atol=1e-6)
    assert (wanted == 0).any()
