"""An imported model on a DICOM series: batch, report, and a DICOM SEG that says what it shows."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
import torch
from skimage.color import rgb2lab
from support.commands import invoke
from support.dicom_masks import errors_of_dciodvfy
from support.foreign_models import DATASET, training_folder

import medseg
from medseg.images.grid import Grid
from medseg.images.palette import label_colour, rgb
from medseg.images.volume import Volume

LABELS = {"background": 0, "spleen": 1, "lung_upper_lobe_left": 2, "my_lesion": 3}


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """A model whose labels are found by chance, and a folder with a series."""
    place = tmp_path_factory.mktemp("desk")
    folder = training_folder(place, dataset={**DATASET, "labels": LABELS}, outputs=4)
    path = folder / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    content["network_weights"]["decoder.seg_layers.1.bias"] = torch.tensor([-2.0, 0, 0, 0])
    torch.save(content, path)
    invoke("import-model", folder, "-o", place / "model.safetensors", "--no-mirror")
    shape = (24, 28, 10)
    values = np.random.default_rng(3).integers(-1000, 300, shape).astype(np.int16)
    grid = Grid.from_spacing(shape, (1.5, 2.0, 5.0), direction=np.diag([-1.0, -1.0, 1.0]))
    (place / "scans").mkdir()
    medseg.io.write_dicom_series(Volume(values, grid), place / "scans" / "one", modality="CT")
    invoke(
        "batch",
        place / "scans",
        "-o",
        place / "out",
        "--model",
        place / "model.safetensors",
        "--dicom",
        "dicom-seg",
    )
    return place


@pytest.fixture(scope="module")
def segments(desk):
    (path,) = (desk / "out").rglob("*.dcm")
    return path, {each.SegmentLabel: each for each in pydicom.dcmread(path).SegmentSequence}


def test_segments_have_names_and_codes(segments):
    _, found = segments
    assert len(found) == 3
    types = {name: each.SegmentedPropertyTypeCodeSequence[0] for name, each in found.items()}
    assert (types["spleen"].CodingSchemeDesignator, types["spleen"].CodeValue) == ("SCT", "78961009")
    lobe = types["lung_upper_lobe_left"]
    assert lobe.CodeValue == "45653009"
    assert lobe.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue == "7771000"  # left
    assert types["my_lesion"].CodeValue == "85756007"  # tissue


def test_segments_have_the_colours_of_pictures(desk, segments):
    """As scikit-image converts them to CIELab."""
    _, found = segments
    for label in medseg.load_model(desk / "model.safetensors").recipe.labels:
        given = np.array(found[label.name].RecommendedDisplayCIELabValue) / 65535
        expected = rgb2lab(np.array(rgb(label_colour(label))) / 255)
        np.testing.assert_allclose(given * [100, 255, 255] - [0, 128, 128], expected, atol=0.3)


def test_the_validator_of_dicom_finds_no_error(segments):
    assert errors_of_dciodvfy(segments[0]) == []


def test_the_report_names_the_labels(desk):
    invoke("report", desk / "out")
    page = next((desk / "out").glob("*.html")).read_text()
    for name in ("spleen", "lung upper lobe left", "my lesion"):
        assert name in page
    assert "dataset999_tiny" in page
