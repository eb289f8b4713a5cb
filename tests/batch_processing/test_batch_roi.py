"""Batches that write some of the labels; the left box of the chest is known by hand."""

import json

import nibabel as nib
import numpy as np
import pytest
from support.batches import chest, config_for, run, table

import medseg
from medseg.batch_processing.case_discovery import items
from medseg.batch_processing.messages import BatchConfig
from medseg.errors import UsageError

LEFT_ML = 4 * 12 * 6 * 2.88


@pytest.fixture
def found(tmp_path):
    chest().save(tmp_path / "scan.nii.gz")
    return items(tmp_path / "scan.nii.gz")


def test_masks_and_tables_have_these_labels_only(found, tmp_path):
    out = tmp_path / "out"
    assert run(found, config_for(out, roi=("left_lung",))).done == 1
    (row,) = table(out).to_dict("records")
    assert row["left_lung_ml"] == pytest.approx(LEFT_ML)
    assert not [name for name in row if name.startswith("right_lung")]
    mask = np.asarray(nib.load(out / "masks" / "scan.nii.gz").dataobj)
    (value,) = json.loads((out / "masks" / "labels.json").read_text())["labels"]["left_lung"]
    assert np.unique(mask).tolist() == [0, value]
    assert value == next(
        label.value for label in medseg.load_segmenter("threshold").labels if label.name == "left_lung"
    )


def test_a_folder_holds_masks_with_the_same_labels_only(found, tmp_path):
    out = tmp_path / "out"
    run(found, config_for(out, roi=("left_lung",)))
    assert run(found, config_for(out, roi=("left_lung",)), resume=True).skipped == 1
    for others in ((), ("right_lung",)):
        with pytest.raises(UsageError, match="masks with other labels") as refused:
            run(found, config_for(out, roi=others), resume=True)
        assert refused.value.reason == "other-model"
        assert "--roi" in refused.value.remedy


def test_all_labels_by_name_are_another_order_and_the_digest_without_the_option_stays(found, tmp_path):
    out = tmp_path / "out"
    run(found, config_for(out))
    assert run(found, config_for(out, roi=("left_lung", "right_lung")), resume=True).done == 1
    assert "roi" not in BatchConfig(("threshold",), "", "").decisive


def test_the_order_of_the_names_decides_nothing(found, tmp_path):
    for names, counted in ((("right_lung", "left_lung"), "done"), (("left_lung", "right_lung"), "skipped")):
        summary = medseg.batch(
            tmp_path / "scan.nii.gz",
            tmp_path / "out",
            model="threshold",
            resume=counted == "skipped",
            options=medseg.BatchOptions(roi=names),
            resources=medseg.BatchResources(workers=1),
        )
        assert getattr(summary, counted) == 1


def test_a_label_that_the_model_lacks_is_refused(found, tmp_path):
    with pytest.raises(UsageError, match="no label 'left_lun'") as refused:
        run(found, config_for(tmp_path / "out", roi=("left_lun",)))
    assert refused.value.reason == "no-such-label"
    assert refused.value.remedy.startswith("did you mean left_lung?")
