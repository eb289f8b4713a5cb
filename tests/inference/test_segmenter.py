from __future__ import annotations

import numpy as np
import pytest
import torch
from support.worlds import DIVIDED, tiny, untrained

import medseg
from medseg.datasets.manifest import Case
from medseg.errors import InputRefused, InputWarning, UsageError
from medseg.images.grid import Grid
from medseg.images.volume import Source, Volume
from medseg.inference.model import Model
from medseg.inference.segmenter import Segmenter
from medseg.phantom.thorax import Thorax, default_grid
from medseg.preprocessing.preparation import Prepared, prepare
from medseg.training.case_cache import cached

GRID = default_grid((6.0, 7.0, 9.0))


@pytest.mark.parametrize("dims", [2, 3])
def test_the_mask_lies_on_the_scans_own_grid(dims):
    scan = Thorax().scan(GRID.oriented("PSL"))
    mask = Segmenter(untrained(tiny(dims)))(scan)
    assert mask.grid == scan.grid
    assert mask.array.dtype == np.uint8
    assert mask.labels == tiny().labels


@pytest.mark.parametrize("dims", [2, 3])
def test_same_input_same_bytes(dims):
    scan = Thorax().scan(GRID)
    masks = [Segmenter(untrained(tiny(dims), folds=2))(scan) for _ in range(2)]
    assert masks[0].array.tobytes() == masks[1].array.tobytes()


def test_training_and_segmenter_prepare_bitwise_equal(tmp_path):
    recipe = tiny()
    patient = Thorax.random(5)
    image, label = tmp_path / "ct.nii.gz", tmp_path / "truth.nii.gz"
    patient.scan(GRID, seed=1).save(image)
    patient.truth(GRID).save(label)
    trained_on = cached(Case(id="a", images=(image,), label=label), recipe, tmp_path / "cache").load()
    images: list[np.ndarray] = []

    class Spy(Segmenter):
        def planes(self, prepared: Prepared):
            images.append(prepared.image)
            return super().planes(prepared)

    Spy(untrained(recipe))(medseg.read(image))
    np.testing.assert_array_equal(trained_on.image, images[0])


def test_folds_are_averaged_as_logits():
    recipe = tiny()
    prepared = prepare(recipe, [Thorax().scan(GRID)])
    one, two = untrained(recipe, seed=1), untrained(recipe, seed=2)
    both = torch.from_numpy(Segmenter(Model(recipe, (*one.folds, *two.folds))).probabilities(prepared))
    a, b = (torch.logit(torch.from_numpy(Segmenter(m).probabilities(prepared)), eps=1e-7) for m in (one, two))
    torch.testing.assert_close(both, torch.sigmoid((a + b) / 2), atol=1e-5, rtol=1e-4)


def test_labels_are_painted_in_their_order():
    """A lesion inside a lung is both: the lung's volume counts it, the mask shows it."""
    labels = [{"name": "lung", "values": [1, 2]}, {"name": "lesion", "values": [2]}]
    recipe = tiny(labels=labels, prepare={"spacing_mm": [1, 1, 1], "crop": None})
    scan = Volume(np.zeros((8, 8, 8), np.int16), Grid.from_spacing((8, 8, 8)))
    probabilities = torch.zeros(2, 8, 8, 8)
    probabilities[0, 2:6, 2:6, 2:6] = 0.9
    probabilities[1, 3:5, 3:5, 3:5] = 0.9
    segmenter = Segmenter(untrained(recipe))
    mask = segmenter.mask(probabilities, prepare(recipe, [scan]), scan)
    assert np.bincount(mask.array.ravel()).tolist() == [512 - 64, 64 - 8, 8]
    assert mask.volumes_ml() == pytest.approx({"lung": 0.064, "lesion": 0.008})


def test_exclusive_labels_go_to_the_most_probable():
    """40 % is enough if everything else is less, but not if the background has 60 %."""
    recipe = tiny(prepare={"spacing_mm": [1, 1, 1], "crop": None}, loss={"kind": "dice_ce"})
    scan = Volume(np.zeros((8, 8, 8), np.int16), Grid.from_spacing((8, 8, 8)))
    probabilities = torch.zeros(2, 8, 8, 8)
    probabilities[:, 2:6, 2:6, 2:6] = torch.tensor([0.4, 0.3]).reshape(2, 1, 1, 1)
    probabilities[1, 3:5, 3:5, 3:5] = 0.5
    probabilities[0, 7] = 0.4
    mask = Segmenter(untrained(recipe)).mask(probabilities, prepare(recipe, [scan]), scan)
    assert np.bincount(mask.array.ravel()).tolist() == [512 - 64, 64 - 8, 8]


def test_probabilities_of_exclusive_labels_are_a_softmax():
    recipe = tiny(loss={"kind": "dice_ce"})
    model = untrained(recipe)
    prepared = prepare(recipe, [Thorax().scan(GRID)])
    found = Segmenter(model).probabilities(prepared).astype(np.float64)
    # The same network with a sigmoid: logits back from its probabilities.
    sigmoid = Segmenter(Model(tiny(), model.folds)).probabilities(prepared).astype(np.float64)
    exponentials = sigmoid / (1 - sigmoid)  # e to the logit
    expected = exponentials / (1 + exponentials.sum(0))
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)


def test_postprocess_rules_apply_on_the_source_grid():
    rules = {"keep_components": 1, "fill_holes": True, "min_volume_ml": 0.01}
    recipe = tiny(
        labels=[{"name": "x", "values": [1]}],
        prepare={"spacing_mm": [1, 1, 1], "crop": None},
        postprocess=rules,
    )
    scan = Volume(np.zeros((12, 12, 12), np.int16), Grid.from_spacing((12, 12, 12)))
    probabilities = torch.zeros(1, 12, 12, 12)
    probabilities[0, 1:6, 1:6, 1:6] = 1
    probabilities[0, 3, 3, 3] = 0  # a hole
    probabilities[0, 9:11, 9:11, 9:11] = 1  # a second, smaller component
    mask = Segmenter(untrained(recipe)).mask(probabilities, prepare(recipe, [scan]), scan)
    assert int(mask.array.sum()) == 125


def test_many_labels_need_two_bytes():
    recipe = tiny(labels=[{"name": "x", "values": [300]}])
    assert Segmenter(untrained(recipe))(Thorax().scan(GRID)).array.dtype == np.uint16


def test_single_slices_and_thin_slabs_work():
    for count in (1, 2, 5):
        thin = Grid.from_spacing((40, 36, count), (6.0, 7.0, 5.0), origin_mm=(-120, -120, 0))
        for dims in (2, 3):
            assert Segmenter(untrained(tiny(dims)))(Thorax().scan(thin)).grid == thin


def test_the_wrong_number_of_channels_is_refused():
    recipe = tiny(channels=["T1", "T2"])
    with pytest.raises(InputRefused, match="T1, T2"):
        Segmenter(untrained(recipe))(Thorax().scan(GRID))


def test_segment_takes_paths_and_volumes(tmp_path):
    model = untrained(tiny()).save(tmp_path / "m.safetensors")
    scan = Thorax().scan(GRID)
    path = scan.save(tmp_path / "ct.nii.gz")
    from_volume, from_path = medseg.segment(scan, model=model), medseg.segment(path, model=model)
    np.testing.assert_array_equal(from_volume.array, from_path.array)
    np.testing.assert_array_equal(medseg.segment([path], model=model).array, from_path.array)
    with pytest.raises(UsageError, match="no such model"):
        medseg.segment(scan, model="none")


def test_channels_on_different_grids_and_other_modalities_are_refused():
    scan = Thorax().scan(GRID)
    moved = Volume(scan.array, Grid(GRID.shape, GRID.affine + 50 * np.eye(4, k=3)))
    with pytest.raises(InputRefused, match="50 mm apart"):
        Segmenter(untrained(tiny(channels=["a", "b"])))([scan, moved])
    with pytest.raises(InputRefused, match="the scan is MR, the model is for CT"):
        Segmenter(untrained(tiny()))(Thorax().scan(GRID, modality="MR"))
    pet = Volume(scan.array, GRID, Source(modality="PT"))
    with pytest.raises(InputRefused, match="the scan is PT"):
        Segmenter(untrained(tiny()))(pet)
    mask = Segmenter(untrained(tiny()), any_modality=True)(pet)
    assert np.array_equal(mask.array, Segmenter(untrained(tiny()))(scan).array)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda hu: hu + 1024, "about 1000 or 1024 too high"),
        (lambda hu: ((hu.clip(-1000, 400) + 1000) / 1400 * 255).astype(np.uint8), "windowed or normalised"),
        (lambda hu: (hu / 1000).astype(np.float32), "windowed or normalised"),
    ],
    ids=["unsigned", "bytes", "normalised"],
)
def test_ct_that_is_not_in_hu_is_refused(change, message):
    hu = np.asarray(Thorax().scan(GRID).array)
    scan = Volume(np.asfortranarray(change(hu)), GRID)
    with pytest.raises(InputRefused, match=message) as refused:
        Segmenter(untrained(tiny()))(scan)
    assert refused.value.reason == "not-hu"
    assert Segmenter(untrained(tiny()), any_modality=True)(scan).grid == GRID


def test_ct_without_air_gives_a_notice():
    hu = np.asarray(Thorax().scan(GRID).array)
    with pytest.warns(InputWarning, match="1st percentile is 0 HU"):
        Segmenter(untrained(tiny()))(Volume(np.asfortranarray(hu.clip(0, None)), GRID))


@pytest.mark.filterwarnings("ignore:.*as dense as soft tissue:medseg.errors.InputWarning")  # its tumour
@pytest.mark.parametrize("codes", ["RAS", "LPS", "SRA"])
def test_lungs_found_as_one_are_divided_into_sides(codes):
    segment = Segmenter(untrained(tiny(**DIVIDED)))
    scan = Thorax().scan(GRID.oriented(codes))
    truth = np.asarray(Thorax().truth(scan.grid).array)
    prepared = prepare(segment.recipe, (scan,))
    lungs = Thorax().truth(prepared.grid)
    probabilities = torch.from_numpy(np.isin(lungs.array, (1, 2, 3, 4)).astype(np.float32))[None]
    mask = segment.mask(probabilities, prepared, scan)
    assert [label.name for label in mask.labels] == ["right_lung", "left_lung"]
    assert segment.labels == mask.labels
    for value, values in ((1, (1, 3)), (2, (2, 4))):
        found, true = np.asarray(mask.array) == value, np.isin(truth, values)
        assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.85
        assert not (found & np.isin(truth, (1, 2, 3, 4)) & ~true).any()


@pytest.mark.filterwarnings("ignore:.*as dense as soft tissue:medseg.errors.InputWarning")  # its tumour
def test_no_lung_and_a_single_lung_are_reported():
    segment = Segmenter(untrained(tiny(**DIVIDED)))
    scan = Thorax().scan(GRID)
    prepared = prepare(segment.recipe, (scan,))
    with pytest.warns(InputWarning, match="no lung was found"):
        segment.mask(torch.zeros(1, *prepared.grid.shape), prepared, scan)
    right = torch.from_numpy(np.isin(Thorax().truth(prepared.grid).array, (1, 3)).astype(np.float32))
    with pytest.warns(InputWarning, match="hardly any left lung"):
        segment.mask(right[None], prepared, scan)


def test_removed_airless_parts_are_reported():
    segment = Segmenter(untrained(tiny(**DIVIDED)))
    scan = Thorax().scan(GRID)
    prepared = prepare(segment.recipe, (scan,))
    heart = torch.zeros(1, *prepared.grid.shape)
    truth = Thorax().truth(prepared.grid)
    heart[0] = torch.from_numpy(truth.of("heart").astype(np.float32))
    with (
        pytest.warns(InputWarning, match="ml of airless tissue"),
        pytest.warns(InputWarning, match="no lung was found"),
    ):
        mask = segment.mask(heart, prepared, scan)
    assert not mask.array.any()
