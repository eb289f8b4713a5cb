from __future__ import annotations

import json
import re

import numpy as np
from support.layouts import series

from medseg.images.volume import Mask
from medseg.inference.segmentation import segment_file
from medseg.io.sidecar import sidecar_path
from medseg.measurement.measures import REGISTRY
from medseg.measurement.methods_section import methods_text
from medseg.measurement.references import BIBTEX
from medseg.measurement.scan_measurement import measure
from medseg.phantom.thorax import LABELS, Thorax, default_grid

GRID = default_grid((9.0, 10.0, 12.0), "LPS")
SCAN, TRUTH = Thorax().scan(GRID), Thorax().truth(GRID)
LUNGS = Mask(TRUTH.array, GRID, LABELS[:2])


def entries(text: str) -> set[str]:
    return set(re.findall(r"^@\w+\{(\w+),", text, re.MULTILINE))


def test_every_source_of_a_measure_is_in_the_references():
    assert {key for measure in REGISTRY.values() for key in measure.source} <= BIBTEX.keys()
    for key, entry in BIBTEX.items():
        assert re.match(r"@\w+\{" + key + ",", entry), key
        assert entry.count("{") == entry.count("}"), key


def test_the_paragraph_holds_every_definition_and_cites_what_it_lists():
    text = methods_text(measure(SCAN, LUNGS, rind_mm=12.0))
    for measure_of in REGISTRY.values():
        assert measure_of.definition in text
    assert "a rind of 12 mm" in text
    assert "without resampling" in text
    paragraph = text.split("```bibtex")[0]
    assert set(re.findall(r"@(\w+)", paragraph)) == entries(text)
    assert "nelson2009" not in text


def test_it_tells_of_lesions_and_correction_only_where_they_are():
    marks = Mask(np.isin(TRUTH.array, (3, 4)).astype(np.uint8), GRID, ())
    found = measure(SCAN, LUNGS, lesions=marks)
    assert "nelson2009" in entries(methods_text(found))
    assert "HU were not corrected." in methods_text(found)
    shapes = methods_text(measure(SCAN, TRUTH, kind="structures"))
    assert entries(shapes) == {"ibsi2020"}
    assert "LAA" not in shapes


def test_it_names_the_model_of_a_mask_with_a_sidecar(tmp_path):
    path = LUNGS.save(tmp_path / "lungs.nii.gz")
    facts = {"labels": {"right_lung": [1, 3], "left_lung": [2, 4]}, "engine": "torch 2.10"}
    facts |= {"shape": list(GRID.shape), "affine": GRID.affine.tolist()}
    sidecar_path(path).write_text(json.dumps(facts | {"recipe": "lung_ct", "model_sha256": "ab" * 32}))
    assert f"lung_ct (SHA-256 {'ab' * 32}, torch 2.10)" in methods_text(measure(SCAN, path))
    assert "as described elsewhere" in methods_text(measure(SCAN, LUNGS))


def test_the_model_of_a_dicom_mask_is_named(tmp_path):
    """Its sidecar says so; the source of such a mask, once placed on its scan, is the scan's."""
    series(tmp_path / "ct", 1)
    made = segment_file(tmp_path / "ct", tmp_path / "lungs.dcm", model="threshold", format="dicom-seg")
    text = methods_text(measure(tmp_path / "ct", made.path))
    assert f"by the model threshold (SHA-256 {made.facts['model_sha256']}" in text
