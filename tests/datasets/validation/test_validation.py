"""Checking a data set as a whole: what is sound has no finding, and the docs name every finding."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from support.check_cases import RECIPE, found
from support.markdown import table_rows

from medseg.datasets.manifest import Case, Manifest
from medseg.datasets.validation import (
    REGISTRY,
    check,
)
from medseg.phantom.thorax import LABELS, Thorax, default_grid, rotated

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("recipe", [RECIPE, None])
def test_sound_cases_have_no_finding(cases, recipe):
    report = check(cases, recipe)
    assert report.findings == ()
    assert report.cases == 3


def test_the_table_counts_the_voxels_of_every_value(cases):
    report = check(cases, RECIPE)
    arrays = [np.asarray(nib.load(case.label).dataobj) for case in cases]
    for row in report.values:
        assert row.voxels == sum(int((array == row.value).sum()) for array in arrays)
        assert row.cases == sum(bool((array == row.value).any()) for array in arrays)
    assert {row.value: row.name for row in report.values if row.value in (0, 1, 3, 5)} == {
        0: "", 1: "right_lung", 3: "right_lung", 5: "middle",
    }  # fmt: skip


def test_oblique_scans_and_every_order_of_axes_are_sound(tmp_path):
    """The label is stored in another order than the scan: that is the same place."""
    made = []
    for number, codes in enumerate(("RAS", "LPI", "SRA", "IAL")):
        patient, grid = Thorax.random(number), rotated(default_grid((12.0, 13.0, 17.0)), (11, -17, 23))
        image = patient.scan(grid).save(tmp_path / f"{number}.nii.gz")
        label = patient.truth(grid).oriented(codes).save(tmp_path / f"{number}_l.nrrd")
        made.append(Case(id=f"{number}", images=(image,), label=label, split="val" if number else "train"))
    assert found(made) == []


def test_the_page_explains_every_finding_and_names_its_test():
    findings = (ROOT / "docs" / "checks.md").read_text(encoding="utf-8").split("\n## ")[0]
    page = table_rows(findings)
    described = {row[0].strip("`"): row for row in page}
    assert list(described) == list(REGISTRY)
    assert len(page) == len(REGISTRY)
    texts = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")]
    here = {name for text in texts for name in re.findall(r"^def (test_\w+)\(", text, re.MULTILINE)}
    for code, (_, severity, what, remedy, test) in described.items():
        assert severity.split(" ")[0] == REGISTRY[code].severity, code
        assert what, code
        assert remedy, code
        assert test.strip("`") in here, code


@pytest.mark.parametrize(
    ("name", "recipe"), [("lctsc_lungs", "lung_ct_3d"), ("hippocampus", "hippocampus_mr_3d")]
)
def test_real_data_has_no_finding(shared_data, name, recipe):
    from medseg.recipe import Recipe

    cases = Manifest.read(ROOT / "data_manifests" / f"{name}.yaml", root=shared_data).cases
    assert check(cases[:30], Recipe.read(recipe), split="train").findings == ()


def test_phantom_values_are_all_in_the_recipe():
    """Guards the tests above: a new structure of the phantom would be an unknown value in each."""
    known = {value for label in RECIPE.labels for value in label.values}
    assert {value for label in LABELS for value in label.values} == known
