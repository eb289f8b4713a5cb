"""The shipped lung models: their files, their cards, and unchanged results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import medseg
from medseg.errors import InputWarning
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.volume import Volume
from medseg.inference.model import Model
from medseg.inference.model_files import find
from medseg.inference.registry import DEFAULT
from medseg.phantom.demo import MODEL, run_demo

ROOT = Path(__file__).parents[2]
PHANTOM = (0.991, 0.990)
LUNGS = (Label(name="lungs", values=(1, 2)),)


@pytest.mark.parametrize("name", ["lung_ct", "lung_ct_context"])
def test_the_file_is_small_and_its_digest_and_licence_are_in_the_card(name):
    path = find(name)
    model = Model.load(path)
    card = ROOT / "docs" / "model_cards" / f"{name.replace('_', '-')}.md"
    assert path.stat().st_size < 16e6
    assert model.digest in card.read_text(encoding="utf-8")
    assert model.provenance["licence"].startswith("Apache-2.0")
    labels = {label.name: label.value for label in model.recipe.painted}
    assert labels == {"right_lung": 1, "left_lung": 2}


@pytest.mark.slow
def test_the_phantoms_lungs_are_found(tmp_path):
    """Dice as measured when the model was made; the phantom was not part of its training."""
    assert MODEL == DEFAULT
    right, left = run_demo(tmp_path).scores
    assert right.dice == pytest.approx(PHANTOM[0], abs=0.003)
    assert left.dice == pytest.approx(PHANTOM[1], abs=0.003)


@pytest.mark.slow
@pytest.mark.parametrize(("patient", "dice"), [("LCTSC-004", 0.9847), ("LCTSC-008", 0.9860)])
def test_the_lungs_of_patients_are_found(shared_data, patient, dice):
    """Dice as measured when the model was made: a regression check, not a measure of quality."""
    folder = shared_data / "lung_ct_2mm" / patient
    truth = medseg.read_mask(folder / "lung_mask.nii.gz", LUNGS)
    mask = medseg.segment(folder / "ct.nii.gz", model="lung_ct")
    found, true = np.asarray(mask.array) > 0, np.asarray(truth.array) > 0
    assert 2 * (found & true).sum() / (found.sum() + true.sum()) == pytest.approx(dice, abs=0.003)
    x_mm = [(truth.grid.affine[0, :3] @ np.argwhere(mask.array == value).mean(axis=0)) for value in (1, 2)]
    assert x_mm[0] > x_mm[1]


def test_a_scan_without_a_chest_gives_a_notice():
    water = Volume(np.zeros((40, 40, 20), dtype=np.int16), Grid.from_spacing((40, 40, 20), (4.0, 4.0, 5.0)))
    with pytest.warns(InputWarning, match="no lung was found"):
        mask = medseg.segment(water)
    assert not mask.array.any()
