from __future__ import annotations

from pathlib import Path

import pytest

from medseg.cli.mask_targets import MaskTarget, mask_targets
from medseg.errors import UsageError

A, B, C = Path("in/a.nii.gz"), Path("in/b.mha"), Path("in/series")


@pytest.mark.parametrize(
    ("scans", "channels", "output", "expected"),
    [
        ([A], [], "m.nii.gz", [((A,), "m.nii.gz")]),
        ([A, Path("m.nrrd")], [], None, [((A,), "m.nrrd")]),
        ([], [A, B], "m.nii.gz", [((A, B), "m.nii.gz")]),
        ([A], [], "out/", [((A,), "out/a.nii.gz")]),
        ([], [A, B], "out/", [((A, B), "out/a.nii.gz")]),
        (
            [A, B, C],
            [],
            "out/",
            [((A,), "out/a.nii.gz"), ((B,), "out/b.nii.gz"), ((C,), "out/series.nii.gz")],
        ),
    ],
)
def test_scans_have_masks_named_after_them_in_folders(scans, channels, output, expected):
    assert mask_targets(scans, channels, output, None) == [MaskTarget(s, Path(m)) for s, m in expected]


def test_an_existing_folder_needs_no_slash_and_dicom_masks_their_suffix(tmp_path):
    (target,) = mask_targets([A], [], str(tmp_path), "dicom-seg")
    assert target.mask == tmp_path / "a.dcm"


@pytest.mark.parametrize(
    ("scans", "channels", "output", "problem", "reason"),
    [
        ([], [], "m.nii.gz", "no scan is named", "usage"),
        ([A], [], None, "no mask to write is named for in/a.nii.gz: -o", "usage"),
        ([A, B, C], [], None, "for in/a.nii.gz, in/b.mha, in/series: -o is missing", "usage"),
        ([A], [B], "m.nii.gz", r"SCAN \(in/a.nii.gz\) and with -i \(in/b.mha\)", "usage"),
        ([A, B], [], "m.nii.gz", "2 scans for one mask file", "usage"),
        ([A, Path("other/a.nrrd")], [], "out/", "two scans have this mask", "same-mask"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(scans, channels, output, problem, reason):
    with pytest.raises(UsageError, match=problem) as refused:
        mask_targets(scans, channels, output, None)
    assert refused.value.reason == reason
