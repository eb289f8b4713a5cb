"""The volume of a structure is the same number wherever it is read."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest

import medseg
from medseg import reporting
from medseg.images.volume_text import volume_text
from medseg.io.sidecar import sidecar_path
from medseg.phantom.thorax import Thorax, default_grid
from medseg.visualization.viewer import scene


def test_one_case_has_one_volume_everywhere(tmp_path):
    (tmp_path / "scans").mkdir()
    path = Thorax().scan(default_grid((5.0, 6.0, 7.0))).save(tmp_path / "scans/chest.nii.gz")
    out = tmp_path / "out"
    medseg.batch(
        tmp_path / "scans",
        out,
        model="threshold",
        options=medseg.BatchOptions(measure="lung"),
        progress=False,
    )
    row = pd.read_csv(out / "results.csv").iloc[0]
    mask_path = out / row["mask"]
    scan = medseg.read(path)
    mask = medseg.read_named(mask_path, scan)
    alone = medseg.segment_file(path, tmp_path / "lungs.nii.gz", model="threshold").path
    sidecar = json.loads(sidecar_path(alone).read_text())["volumes_ml"]
    measured = {
        one.structure: one.values["volume_ml"]
        for one in medseg.measure(scan, mask).rows
        if one.region == "whole"
    }
    shown = json.loads(scene(scan, [("mask", mask)]).files["scene.json"])["masks"][0]["labels"]
    report = re.sub(r"<[^>]*>", " ", reporting.report(out).read_text())
    for name in ("right_lung", "left_lung"):
        # By hand: the number of voxels times 5 x 6 x 7 mm = 0.21 ml.
        truth = int(mask.of(name).sum()) * 0.21
        assert row[f"{name}_ml"] == pytest.approx(truth, abs=1e-3)
        assert sidecar[name] == pytest.approx(truth, abs=1e-3)
        assert measured[name] == pytest.approx(truth, abs=1e-3)
        text = f"{truth:.1f}"
        assert next(label["volume"] for label in shown if label["name"] == name) == f"{text} ml"
        assert f" {text} " in report
        assert f"{text} ml" in medseg.html_card(mask)


@pytest.mark.parametrize(
    ("ml", "text"),
    [(0, "0.0 ml"), (0.0421, "0.042 ml"), (1, "1.0 ml"), (3247.26, "3247.3 ml"), (61234.5, "61234.5 ml")],
)
def test_volumes_are_never_rounded_to_thousands(ml, text):
    assert volume_text(ml) == text
