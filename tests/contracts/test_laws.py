"""Laws that must hold for every implementation: where a mask lies, and which side is left."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from medseg.evaluation.scoring import score
from medseg.images.volume import Mask, Volume
from medseg.inference.backends import Engine
from medseg.inference.segmenter import Segmenter
from medseg.io import read, write_dicom_series
from medseg.phantom.thorax import Thorax, default_grid, orientations, rotated

TURNS = [(0.0, 0.0, 0.0), (8.0, -5.0, 12.0), (-14.0, 17.0, -6.0)]
PATIENT = Thorax.random(4711)


class Remembering:
    """An engine that caches the results of another by the exact bits of the input."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.name = engine.name
        self.seen: dict[bytes, np.ndarray] = {}

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        key = hashlib.sha256(np.ascontiguousarray(windows).tobytes()).digest()
        if key not in self.seen:
            self.seen[key] = self.engine(windows)
        return self.seen[key]


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    """The shipped model; without cached windows, 144 scans would take minutes."""
    made = Segmenter("phantom_lungs")
    made._engines = [Remembering(engine) for engine in made._engines]
    return made


@pytest.fixture(scope="module", params=TURNS, ids=str)
def world(request, segmenter) -> tuple[Volume, Mask]:
    """An oblique scan in RAS order and its mask, the reference for the other 47 orders."""
    scan = PATIENT.scan(rotated(default_grid((7.0, 8.0, 9.0)), request.param))
    return scan, segmenter(scan)


@pytest.mark.slow
def test_48_orientations_give_the_same_mask_in_world_space(world, segmenter):
    scan, reference = world
    for axcodes in orientations():
        stored = scan.oriented(axcodes)
        mask = segmenter(Volume(np.ascontiguousarray(stored.array), stored.grid))
        assert mask.grid == stored.grid
        back = mask.oriented("RAS")
        assert back.grid.distance_mm(reference.grid) < 1e-9
        np.testing.assert_array_equal(back.array, reference.array, err_msg=axcodes)


def test_the_left_lung_is_on_the_patients_left(world):
    _, mask = world
    # World +x is the patient's right, so the left lung's centroid has the smaller x.
    centre = {
        side: mask.grid.world(np.argwhere(mask.of(f"{side}_lung"))).mean(axis=0) for side in ("left", "right")
    }
    assert centre["left"][0] < -20 < 20 < centre["right"][0]


def test_the_mask_is_right_not_only_consistent(world, segmenter):
    scan, mask = world
    truth = PATIENT.truth(scan.grid)
    for row in score(mask, Mask(truth.array, truth.grid, segmenter.model.recipe.labels)):
        assert row.dice > 0.93, row


def test_the_left_lung_is_left_through_dicom_and_nifti(tmp_path, segmenter):
    scan = PATIENT.scan(default_grid((5.0, 6.0, 7.0), "PSL"))
    (tmp_path / "ct").mkdir()
    write_dicom_series(scan, tmp_path / "ct")
    mask = segmenter(read(tmp_path / "ct"))
    again = read(mask.save(tmp_path / "mask.nii.gz"))
    x = {value: again.grid.world(np.argwhere(again.array == value)).mean(axis=0)[0] for value in (1, 2)}
    assert x[2] < -20 < 20 < x[1]
