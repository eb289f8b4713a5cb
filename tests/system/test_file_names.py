from __future__ import annotations

from pathlib import Path

import pytest

from medseg.system.file_names import file_name


@pytest.mark.parametrize("name", ["right_lung", "Lunge links", "größe", "a.b", "GTV-1"])
def test_safe_names_stay_as_they_are(name):
    assert file_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "GTV/CTV",
        "../x",
        "..",
        ".",
        "",
        "/etc/passwd",
        "a\\b",
        "a:b",
        "x\n",
        "a\x00b",
        " a ",
        "b" * 300,
        "é" * 200,
    ],
)
def test_other_names_become_one_file_in_the_folder(tmp_path: Path, name):
    made = file_name(name)
    path = tmp_path / f"case_{made}.nii.gz"
    assert path.parent == tmp_path
    path.write_text("x")
    assert path.resolve().parent == tmp_path.resolve()
    assert not made.startswith(".")
    assert len(made.encode()) <= 180


def test_names_that_would_become_equal_stay_apart():
    names = ["GTV/CTV", "GTV_CTV", "GTV:CTV", "GTV//CTV", "a" * 300, "a" * 301]
    assert len({file_name(name) for name in names}) == len(names)
    assert file_name("GTV/CTV").startswith("GTV_CTV-")
