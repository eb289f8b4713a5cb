"""The hand-over to mirp, with a stand-in of its interface: mirp itself is an extra."""

from __future__ import annotations

import sys
from importlib import metadata
from types import ModuleType

import nibabel
import numpy as np
import pandas as pd
import pytest

from medseg.errors import ResourceError, UsageError
from medseg.measurement import radiomics
from medseg.measurement.methods_section import methods_text
from medseg.measurement.radiomics import DEFAULT_SETTINGS, measure_radiomics
from medseg.phantom.thorax import Thorax, default_grid

GRID = default_grid((9.0, 10.0, 12.0), "LPS")
SCAN, TRUTH = Thorax().scan(GRID), Thorax().truth(GRID)
LUNGS = TRUTH.only("right_lung", "left_lung")


@pytest.fixture
def calls(monkeypatch) -> list[dict[str, object]]:
    """The calls of ``mirp.extract_features``, answered with volume and mean of what the files hold."""
    calls: list[dict[str, object]] = []

    def extract_features(image: str, mask: str, **settings: object) -> list[pd.DataFrame]:
        calls.append(settings)
        scan, region = nibabel.load(image), nibabel.load(mask)
        inside = np.asarray(region.dataobj) > 0
        assert np.allclose(scan.affine, region.affine)
        values = {
            "sample_name": "x",
            "image_modality": "ct",
            "morph_volume": inside.sum() * abs(np.linalg.det(region.affine[:3, :3])),
            "stat_mean": np.asarray(scan.dataobj)[inside].mean(dtype=float),
            "stat_cov": np.nan,
        }
        return [pd.DataFrame([values])]

    stand_in = ModuleType("mirp")
    stand_in.extract_features = extract_features  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mirp", stand_in)
    monkeypatch.setattr(
        radiomics, "version", lambda name: "2.7.0" if name == "mirp" else metadata.version(name)
    )
    return calls


def test_each_label_is_handed_over_with_its_place_and_settings(calls):
    found = measure_radiomics(SCAN, LUNGS)
    right = found.of("right_lung", "radiomics")
    assert right["mirp_morph_volume"] == pytest.approx(LUNGS.volumes_ml()["right_lung"] * 1000, rel=1e-5)
    assert right["mirp_stat_mean"] == pytest.approx(SCAN.array[LUNGS.of("right_lung")].mean(dtype=float))
    assert right["mirp_stat_cov"] is None
    assert set(right) == {"mirp_morph_volume", "mirp_stat_mean", "mirp_stat_cov"}
    assert [row.structure for row in found.rows] == ["right_lung", "left_lung"]
    assert calls[0] == {"image_modality": "ct", **DEFAULT_SETTINGS}
    assert found.settings["radiomics"] == {"mirp": "2.7.0", "settings": dict(DEFAULT_SETTINGS)}
    text = methods_text(found)
    assert "mirp 2.7.0" in text
    assert "base_discretisation_bin_width" in text
    assert "@article{mirp2024" in text


def test_a_file_of_settings_is_passed_on_and_its_digest_recorded(calls, tmp_path):
    (tmp_path / "mine.xml").write_text("<config/>")
    found = measure_radiomics(SCAN, LUNGS, settings=tmp_path / "mine.xml")
    assert calls[0] == {"image_modality": "ct", "settings": str(tmp_path / "mine.xml")}
    recorded = found.settings["radiomics"]["settings"]
    assert recorded["file"] == "mine.xml"
    assert len(recorded["sha256"]) == 64


def test_without_mirp_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mirp", None)
    with pytest.raises(ResourceError) as refused:
        measure_radiomics(SCAN, LUNGS)
    assert refused.value.reason == "missing-extra"
    assert "medseg[radiomics]" in str(refused.value)


def test_what_mirp_raises_is_an_error_of_medseg(calls, monkeypatch):
    def broken(**_: object) -> None:
        raise ValueError("no such setting")

    monkeypatch.setattr(sys.modules["mirp"], "extract_features", broken)
    with pytest.raises(UsageError, match="no such setting") as refused:
        measure_radiomics(SCAN, LUNGS)
    assert refused.value.reason == "measure"
