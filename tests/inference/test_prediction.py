"""Predictions of every segmentation method."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
from support.worlds import DIVIDED, tiny, untrained

from medseg.errors import InputWarning
from medseg.images.volume import Source, Volume
from medseg.inference.registry import SegmentationMethod
from medseg.inference.segmenter import Segmenter
from medseg.inference.threshold_segmenter import ThresholdSegmenter
from medseg.phantom.thorax import Thorax, default_grid
from medseg.system.notices import collect_notices

GRID = default_grid((6.0, 7.0, 9.0)).oriented("PSL")


def methods() -> dict[str, SegmentationMethod]:
    return {"network": Segmenter(untrained(tiny()), engine="torch"), "threshold": ThresholdSegmenter()}


@pytest.mark.parametrize("name", ["network", "threshold"])
@pytest.mark.parametrize("probabilities", [False, True])
def test_predicting_and_calling_give_the_same_mask(name, probabilities):
    method, scan = methods()[name], Thorax().scan(GRID)
    prediction = method.prepare(scan).predict(probabilities=probabilities)
    assert prediction.mask.grid == scan.grid
    assert prediction.mask.labels == method.labels
    np.testing.assert_array_equal(prediction.mask.array, method(scan).array)


def test_requested_probabilities_are_returned_and_decide_the_mask():
    method, scan = methods()["network"], Thorax().scan(GRID)
    assert dict(method.prepare(scan).predict().probabilities) == {}
    prediction = method.prepare(scan).predict(probabilities=True)
    assert list(prediction.probabilities) == ["right_lung", "left_lung"]
    painted = np.zeros(scan.grid.shape, np.uint8)
    for values, value in zip(prediction.probabilities.values(), (1, 2), strict=True):
        assert values.shape == scan.grid.shape
        assert values.dtype == np.float32
        painted[values >= np.float32(0.5)] = value
    assert painted.any()
    np.testing.assert_array_equal(prediction.mask.array, painted)


def test_entropy_is_given_for_the_predicted_labels_only():
    scan = Thorax().scan(GRID)
    entropy = methods()["network"].prepare(scan).predict().entropy
    assert set(entropy) <= {"right_lung", "left_lung"}
    # With random weights the network is certain of hardly anything.
    assert all(0.5 < bits <= 1 for bits in entropy.values())
    assert entropy


def test_thresholds_have_neither_entropy_nor_probabilities():
    prediction = ThresholdSegmenter().prepare(Thorax().scan(GRID)).predict(probabilities=True)
    assert dict(prediction.entropy) == dict(prediction.probabilities) == {}


def test_notices_are_returned_and_sent():
    """Notices about the scan (no air) and about the mask (no lung), for a network that finds no lung."""
    recipe = tiny(**DIVIDED, predict={"threshold": 0.999999})
    hu = np.asarray(Thorax().scan(GRID).array).clip(0, None)
    scan = Volume(np.asfortranarray(hu), GRID, Source(path=Path("ct.nii")))
    method = Segmenter(untrained(recipe), engine="torch")
    with collect_notices() as sent:
        notices = method.prepare(scan).predict().notices
    assert [notice.reason for notice in notices] == ["hu-no-air", "no-lung"]
    assert {notice.path for notice in notices} == {"ct.nii"}
    assert list(notices) == sent
    with pytest.warns(InputWarning) as warned:
        method.prepare(scan).predict()
    assert [str(each.message) for each in warned] == [str(notice) for notice in notices]


def test_thresholds_return_notices_of_the_mask():
    with collect_notices() as sent:
        notices = ThresholdSegmenter().prepare(Volume(np.zeros(GRID.shape, np.int16), GRID)).predict().notices
    assert [notice.reason for notice in notices] == ["no-lung"]
    assert list(notices) == sent


def test_a_prediction_is_a_value():
    prediction = ThresholdSegmenter().prepare(Thorax().scan(GRID)).predict()
    with pytest.raises(FrozenInstanceError):
        prediction.mask = None  # type: ignore[misc, assignment]
