"""Segmenting one scan in one call, from any kind of image, into memory or a file."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from support.worlds import tiny, untrained

import medseg
from medseg.errors import InputRefused, UsageError
from medseg.io.read_options import ReadOptions
from medseg.phantom.thorax import Thorax, default_grid, rotated

GRID = rotated(default_grid((6.0, 7.0, 8.0), "LPS"), (5.0, -8.0, 11.0))


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> Path:
    return Thorax().scan(GRID, seed=3).save(tmp_path_factory.mktemp("scan") / "ct.nii.gz")


@pytest.fixture(scope="module")
def model():
    return medseg.Segmenter(untrained(tiny()))


@pytest.mark.parametrize("kind", ["path", "text", "volume", "simpleitk", "nibabel", "array", "list"])
def test_every_kind_of_scan_gives_the_same_mask(kind, scan, model):
    volume = medseg.read(scan)
    given = {
        "path": scan,
        "text": str(scan),
        "volume": volume,
        "simpleitk": sitk.ReadImage(str(scan)),
        "nibabel": nibabel.load(scan),
        "array": (np.array(volume.array), np.array(volume.affine)),
        "list": [scan],
    }[kind]
    mask = medseg.segment(given, model=model)
    expected = model(volume)
    np.testing.assert_array_equal(mask.array, expected.array)
    assert mask.grid.distance_mm(expected.grid) < 1e-3


def test_nothing_is_printed_by_a_library_call(scan, model, capsys):
    medseg.segment(scan, model=model)
    out, err = capsys.readouterr()
    assert (out, err) == ("", "")


def test_a_file_has_a_sidecar_and_statistics(scan, model, tmp_path):
    made = medseg.segment_file(scan, tmp_path / "m.nii.gz", model=model, stats=tmp_path / "s.json")
    np.testing.assert_array_equal(nibabel.load(made.path).get_fdata(), made.mask.array)
    assert json.loads((tmp_path / "m.json").read_text()) == made.facts
    stats = json.loads((tmp_path / "s.json").read_text())
    assert stats["intensities"]["right_lung"]["voxels"] == int(made.mask.of("right_lung").sum())


class OwnMethod:
    """A method of a user's: thresholds, without the labels that are asked for."""

    def __init__(self) -> None:
        self._method = medseg.load_segmenter("threshold")

    def __getattr__(self, name):
        return getattr(self._method, name)

    def prepare(self, scan):
        return self._method.prepare(scan)


def test_a_method_of_ones_own_need_not_know_of_labels_to_leave_out(scan, tmp_path):
    method = OwnMethod()
    assert medseg.segment(scan, model=method).volumes_ml()
    assert medseg.segment_file(scan, tmp_path / "m.nii.gz", model=method).facts["volumes_ml"]


def test_the_output_is_never_the_scan(scan, model):
    with pytest.raises(UsageError) as caught:
        medseg.segment_file(scan, scan, model=model)
    assert caught.value.reason == "overwrites-input"


def test_open_questions_are_answered_by_options(model):
    array = np.full((12, 12, 12), np.nan, np.float32)
    with pytest.raises(InputRefused) as caught:
        medseg.segment((array, np.diag([20.0, 20.0, 20.0, 1.0])), model=model)
    assert caught.value.reason == "not-finite"
    options = ReadOptions(nonfinite=-1000.0)
    with pytest.warns(UserWarning, match="replaced by -1000"):
        mask = medseg.segment((array, np.diag([20.0, 20.0, 20.0, 1.0])), model=model, options=options)
    assert mask.grid.shape == array.shape


def test_an_empty_list_of_scans_is_refused(model):
    with pytest.raises(UsageError):
        medseg.segment([], model=model)


def test_progress_counts_the_windows_of_the_network(scan, model):
    steps: list[tuple[int, int, str]] = []
    medseg.segment(scan, model=model, progress=lambda *step: steps.append(step))
    assert steps[-1][0] == steps[-1][1] > 1
    assert [done for done, _, _ in steps] == sorted({done for done, _, _ in steps})
    assert {facts for _, _, facts in steps} == {"windows"}
