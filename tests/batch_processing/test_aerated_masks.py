"""Batches and calls that leave airless voxels out of lung masks; one layer of the left lung is at -450 HU."""

import nibabel as nib
import numpy as np
import pytest
from support.batches import GRID, chest, config_for, run, table

import medseg
from medseg.batch_processing.case_discovery import items
from medseg.batch_processing.messages import BatchConfig
from medseg.images.volume import Source, Volume

LAYER_ML, LEFT_ML = 12 * 6 * 2.88, 4 * 12 * 6 * 2.88


def layered(modality: str | None = None) -> Volume:
    array = np.array(chest().array)
    array[4, 6:18, 2:8] = -450  # lung for thresholds, which take -400 HU, but not below -500 HU
    return Volume(array, GRID, Source(modality=modality))


def test_a_batch_leaves_airless_voxels_out_of_its_masks_and_tells_how_much(tmp_path):
    layered().save(tmp_path / "scan.nii.gz")
    for name, option in (("whole", False), ("aerated", True)):
        out = tmp_path / name
        assert run(items(tmp_path / "scan.nii.gz"), config_for(out, aerated_only=option)).done == 1
        (row,) = table(out).to_dict("records")
        assert row["left_lung_airless_ml"] == pytest.approx(LAYER_ML)
        assert row["left_lung_ml"] == pytest.approx(LEFT_ML - option * LAYER_ML)
        mask = np.asarray(nib.load(out / "masks" / "scan.nii.gz").dataobj)
        assert (mask[4, 6:18, 2:8] > 0).all() == (not option)


def test_the_call_for_a_folder_hands_the_option_on(tmp_path):
    layered().save(tmp_path / "scan.nii.gz")
    medseg.batch(
        tmp_path / "scan.nii.gz",
        tmp_path / "out",
        model="threshold",
        options=medseg.BatchOptions(aerated_only=True),
        resources=medseg.BatchResources(workers=1),
    )
    assert table(tmp_path / "out")["left_lung_ml"].tolist() == pytest.approx([LEFT_ML - LAYER_ML])


def test_cases_are_done_again_with_the_option_and_the_digest_without_it_stays(tmp_path):
    layered().save(tmp_path / "scan.nii.gz")
    found, out = items(tmp_path / "scan.nii.gz"), tmp_path / "out"
    run(found, config_for(out))
    assert run(found, config_for(out, aerated_only=True), resume=True).done == 1
    assert run(found, config_for(out, aerated_only=True), resume=True).skipped == 1
    assert "aerated_only" not in BatchConfig(("threshold",), "", "").decisive


def test_segment_leaves_them_out_in_memory():
    whole = medseg.segment(layered(), model="threshold")
    aerated = medseg.segment(layered(), model="threshold", aerated_only=True)
    assert whole.volumes_ml()["left_lung"] == pytest.approx(LEFT_ML)
    assert aerated.volumes_ml()["left_lung"] == pytest.approx(LEFT_ML - LAYER_ML)


def test_the_values_of_another_modality_say_nothing_about_air():
    method = medseg.load_segmenter("threshold", any_modality=True)
    whole = medseg.segment(layered("MR"), model=method, aerated_only=True)
    assert whole.volumes_ml()["left_lung"] == pytest.approx(LEFT_ML)
