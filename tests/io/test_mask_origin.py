"""The model that made a mask is known by its record, and only while the mask is as it was written."""

import json

import nibabel
import numpy as np
from support.batches import chest, config_for, run

from medseg import segment_file
from medseg.batch_processing.case_discovery import items
from medseg.batch_processing.journal import NAME
from medseg.io.mask_origin import mask_origin
from medseg.io.sidecar import sidecar_path


def edit(path):
    """Changes one voxel of a mask, as another program would: the sidecar stays."""
    image = nibabel.load(path)
    array = np.asarray(image.dataobj).copy()
    array[0, 0, 0] = 1
    nibabel.save(nibabel.Nifti1Image(array, image.affine, image.header), path)


def test_a_sidecar_names_the_model_until_the_mask_is_edited(tmp_path):
    chest().save(tmp_path / "ct.nii.gz")
    made = segment_file(tmp_path / "ct.nii.gz", tmp_path / "lungs.nii.gz", model="threshold")
    expected = {name: made.facts[name] for name in ("recipe", "model_sha256", "engine")}
    assert mask_origin(made.path) == expected
    facts = json.loads(sidecar_path(made.path).read_text())
    edit(made.path)
    assert mask_origin(made.path) == {}
    del facts["files"]  # as version 0.1.0 wrote it
    sidecar_path(made.path).write_text(json.dumps(facts))
    assert mask_origin(made.path) == expected


def test_a_journal_names_the_model_until_the_mask_is_edited(tmp_path):
    (tmp_path / "in").mkdir()
    chest().save(tmp_path / "in" / "ä.nii.gz")
    run(items(tmp_path / "in"), config_for(tmp_path / "out"))
    (mask,) = (tmp_path / "out" / "masks").rglob("*.nii.gz")
    (record,) = (
        each
        for each in map(json.loads, (tmp_path / "out" / NAME).read_text().splitlines())
        if each["event"] == "case"
    )
    found = mask_origin(mask)
    assert found == {
        "recipe": record["model"],
        "model_sha256": record["model_sha256"],
        "engine": record["engine"],
    }
    assert found["recipe"] == "threshold"
    (tmp_path / "out" / NAME).open("a").write("damaged " + record["files"][f"masks/{mask.name}"] + "\n")
    assert mask_origin(mask) == found
    edit(mask)
    assert mask_origin(mask) == {}


def test_a_mask_without_any_record_has_no_origin(tmp_path):
    chest().save(tmp_path / "mask.nii.gz")
    assert mask_origin(tmp_path / "mask.nii.gz") == {}
    assert mask_origin(tmp_path / "missing.nii.gz") == {}
