"""The data sets of phantoms that `medseg phantom` writes."""

import numpy as np

import medseg
from medseg.datasets.validation import check


def test_the_truth_of_phantoms_has_only_labels_of_their_recipe(tmp_path):
    made = medseg.make_phantom(tmp_path, 1)
    findings = check(made, "phantom_lungs").findings
    assert "unknown-values" not in {finding.code for finding in findings}
    truth = medseg.read_mask(tmp_path / "labels" / "phantom_000.nii.gz", ())
    assert np.unique(truth.array).tolist() == [0, 1, 2, 3, 4]
