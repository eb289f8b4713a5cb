"""Three tiny networks on the phantom: only geometry is tested, because the weights are random."""

import numpy as np
import pytest

from medseg.errors import UsageError
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.volume import Mask, Volume
from medseg.inference import segmenter, two_stage
from medseg.inference.model import Model
from medseg.inference.segmenter import Segmenter
from medseg.inference.two_stage import Found, _averaged, _cut, _enlarged
from medseg.phantom.thorax import Thorax, default_grid, orientations
from medseg.preprocessing.preparation import prepare
from medseg.system.notices import collect_notices
from tests.support.contexts import CONTEXT
from tests.support.worlds import DIVIDED, tiny, untrained

RECIPE = tiny(**CONTEXT)
GRID = default_grid((3.0, 3.0, 4.0))


@pytest.fixture(scope="module")
def model():
    return untrained(RECIPE)


@pytest.fixture(scope="module")
def slices():
    """A slice network in place of lung_ct, which is slow."""
    return untrained(tiny(2, **DIVIDED))


@pytest.fixture(scope="module")
def segment(model, slices, tmp_path_factory):
    path = slices.save(tmp_path_factory.mktemp("models") / "slices.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segmenter, "SLICES", path)
        return Segmenter(model, engine="torch")


@pytest.fixture(scope="module")
def scan():
    return Thorax.random(3).scan(GRID, seed=3)


def test_there_are_probabilities_of_lung_on_a_prepared_grid(segment, scan):
    prepared, slices = prepare(RECIPE, [scan]), prepare(segment.assembly, [scan])
    with collect_notices():
        found = segment.lungs(prepared, slices)
    ((first, probable),) = found.planes
    assert first == 0
    assert probable.shape == (1, *found.grid.shape)
    assert 0 <= float(probable.min()) <= float(probable.max()) <= 1


def test_networks_that_find_nothing_leave_the_slice_network_alone(segment, slices, scan):
    """The random coarse network confirms no lung, so the mask is that of the slice network, with a notice."""
    with collect_notices():
        prediction = segment.prepare(scan).predict()
        alone = Segmenter(slices, engine="torch")(scan)
    assert "slices-alone" in [notice.reason for notice in prediction.notices]
    assert np.array_equal(prediction.mask.array, alone.array)


def test_networks_that_agree_give_the_lungs_of_the_phantom(segment, slices, scan, monkeypatch):
    """With networks that are right, the mask is the phantom's."""
    truth = Thorax.random(3).truth(GRID)
    lungs = np.isin(truth.array, [1, 2, 3, 4])[None].astype(np.float32)

    def probable(recipe):
        return two_stage.resample(lungs, truth.grid, prepare(recipe, [scan]).grid)

    def right(self, *arguments):
        return np.concatenate([probable(RECIPE) * 0.95, probable(RECIPE) * 0.04])

    def everywhere(self, image, coarse):
        return (slice(None), slice(None), slice(None)), right(self)

    monkeypatch.setattr(two_stage.TwoStage, "_coarse", right)
    monkeypatch.setattr(two_stage.TwoStage, "_fine", everywhere)
    monkeypatch.setattr(Segmenter, "probabilities", lambda self, prepared: probable(slices.recipe))
    with collect_notices():
        prediction = segment.prepare(scan).predict(probabilities=True)
    found, expected = prediction.mask.array > 0, np.isin(truth.array, [1, 2, 3, 4])
    assert 2 * np.count_nonzero(found & expected) / (found.sum() + expected.sum()) > 0.85
    assert prediction.probabilities["lungs"].shape == scan.grid.shape
    reasons = [notice.reason for notice in prediction.notices]
    assert "slices-alone" not in reasons
    # The stand-in holds every voxel for right, so the whole left lung differs from its position.
    assert "sides-disagree" in reasons


def test_a_scan_without_air_has_an_empty_mask(segment):
    water = Volume(np.zeros((40, 40, 20), dtype=np.int16), Grid((40, 40, 20), np.diag([4.0, 4, 5, 1])))
    with collect_notices():
        assert not segment(water).array.any()


def test_the_model_file_holds_both_networks(model, tmp_path):
    again = Model.load(model.save(tmp_path / "both.safetensors"))
    assert again.recipe == RECIPE
    assert again.folds[0].keys() == model.folds[0].keys()


def test_the_digest_covers_the_slice_network_and_the_rules(segment, model, monkeypatch):
    assert segment.digest != model.digest
    assert len(segment.digest) == 64
    monkeypatch.setattr("medseg.inference.segmenter.RULES", 0)
    assert Segmenter(model).digest != segment.digest


def test_there_are_no_planes_of_one_network(segment, scan):
    with pytest.raises(UsageError) as caught:
        next(segment.planes(prepare(RECIPE, [scan])))
    assert caught.value.reason == "context"


def test_the_mask_is_the_same_in_all_48_orientations(segment, scan):
    with collect_notices():
        first = segment(scan).oriented("RAS").array
        for codes in list(orientations())[1::16]:
            assert np.array_equal(segment(scan.oriented(codes)).oriented("RAS").array, first), codes


@pytest.mark.parametrize(("mm", "count"), [(10.0, 1), (5.0, 0)])
def test_much_volume_on_the_other_side_is_reported(mm, count):
    labels = Label(name="right", values=(1,), side="right"), Label(name="left", values=(2,), side="left")
    grid = Grid((10, 10, 10), np.diag([mm, mm, mm, 1.0]))
    painted = np.ones((10, 10, 10), dtype=np.uint8)
    right = np.ones((10, 10, 10), dtype=bool)
    right[0, :5, :5] = False  # 25 voxels of 1 ml, or of 0.125 ml
    found = Found([], grid, right).check_sides(Mask(painted, grid, labels))
    assert len(found) == count
    assert all("25 ml" in notice.text for notice in found)


def test_a_box_is_zero_outside_the_scan():
    values = np.arange(1, 5, dtype=np.float32).reshape(1, 4, 1, 1)
    cut = _cut(values, [-1, 0, 0], [4, 1, 1])
    assert cut.ravel().tolist() == [0, 1, 2, 3]
    assert _cut(values, [2, 0, 0], [4, 1, 1]).ravel().tolist() == [3, 4, 0, 0]
    # Cutting with the opposite offset restores the position.
    assert _cut(cut, [1, 0, 0], [4, 1, 1]).ravel().tolist() == [1, 2, 3, 0]


def test_cubes_are_averaged_and_interpolated_between_their_middles():
    values = np.arange(8, dtype=np.float32).reshape(1, 8, 1, 1).repeat(2, 2).repeat(2, 3)
    coarse = _averaged(values, 2)
    assert coarse.shape == (1, 4, 1, 1)
    assert coarse.ravel().tolist() == [0.5, 2.5, 4.5, 6.5]
    # Between the middles the line is exact; beyond the first and last middle the value is repeated.
    assert _enlarged(coarse, 2)[0, :, 0, 0].tolist() == [0.5, 1, 2, 3, 4, 5, 6, 6.5]


def test_networks_on_a_device_are_given_batches_of_tensors(segment, scan):
    """The CPU under another name is taken for a device of its own."""
    stages = segment._two_stage
    image = prepare(RECIPE, [scan]).image
    dark = np.ones(image.shape[1:], dtype=bool)
    expected = stages._coarse(image, dark, (3.0, 3.0, 4.0))
    kinds = []
    run, engine = stages.coarse[0]._run, stages.coarse[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "_device", "cpu:0")
        patch.setattr(engine, "batch", 2)
        patch.setattr(engine, "_run", lambda windows: (kinds.append(len(windows)), run(windows))[1])
        found = stages._coarse(image, dark, (3.0, 3.0, 4.0))
    assert set(kinds) <= {1, 2}
    assert kinds
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, expected, atol=1e-5)
