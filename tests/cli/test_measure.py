from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.commands import run

from medseg.cli.segment import _print_result
from medseg.images.grid import Grid
from medseg.images.volume import Mask, Volume
from medseg.inference.segmentation import SegmentedFile
from medseg.phantom.thorax import LABELS, Thorax, default_grid

GRID = default_grid((9.0, 10.0, 12.0), "LPS")


@pytest.fixture
def desk(tmp_path, monkeypatch):
    Thorax().scan(GRID).save(tmp_path / "chest.nii.gz")
    lungs = Mask(Thorax().truth(GRID).array, GRID, LABELS[:2])
    lungs.save(tmp_path / "lungs.nii.gz")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_measures_become_a_table(desk, monkeypatch, capsys):
    assert run(monkeypatch, "medseg measure chest.nii.gz lungs.nii.gz -o m.csv --kind lung") == 0
    assert "both_lungs" in capsys.readouterr().out
    assert (desk / "m.csv").read_text().startswith("structure,region,volume_ml,mass_g,mean_hu")


def test_a_volume_below_a_millilitre_is_not_printed_as_zero(tmp_path, monkeypatch, capsys):
    grid = Grid.from_spacing((8, 8, 8), (3.0, 3.5, 4.0))
    array = np.zeros(grid.shape, np.uint8)
    array[4, 4, 4] = 1  # a voxel has 3 x 3.5 x 4 = 42 mm^3
    mask = Mask(array, grid, (LABELS[0],))
    mask.save(tmp_path / "lesion.nii.gz")
    Volume(np.full(grid.shape, -800, np.int16), grid).save(tmp_path / "scan.nii.gz")
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "medseg measure scan.nii.gz lesion.nii.gz -o m.csv --kind structures") == 0
    measured = capsys.readouterr().out.splitlines()
    _print_result(None, SegmentedFile(Path("m"), mask, {}), 1.0, "", as_json=False, named=False)
    segmented = capsys.readouterr().out.splitlines()
    assert measured[0].split()[-2:] == ["0.042", "ml"]
    assert segmented[0].split() == ["right_lung", "0.042", "ml"]


def test_a_mask_without_names_is_measured_with_a_hint(desk, monkeypatch, capsys):
    (desk / "named").mkdir()
    array = Mask(Thorax().truth(GRID).array, GRID, ()).save(desk / "plain.nii.gz")
    for options, hint in (("", True), ("--kind lung", False), ("--kind structures", False)):
        assert run(monkeypatch, f"medseg measure chest.nii.gz {array.name} -o m.csv {options}") == 0
        assert ("--kind lung measures all of them together" in capsys.readouterr().err) == hint
    names = {"labels": {label.name: list(label.values) for label in LABELS}}
    (desk / "named" / "labels.json").write_text(json.dumps(names))
    array.rename(desk / "named" / array.name)
    assert run(monkeypatch, f"medseg measure chest.nii.gz named/{array.name} -o m.csv") == 0
    assert "--kind" not in capsys.readouterr().err


def test_json_on_standard_output_is_what_the_file_holds(desk, monkeypatch, capsys):
    assert run(monkeypatch, "medseg measure chest.nii.gz lungs.nii.gz -o m.json --json") == 0
    assert json.loads(capsys.readouterr().out) == json.loads((desk / "m.json").read_text())


def test_the_table_may_not_replace_an_input_and_has_a_known_suffix(desk, monkeypatch, capsys):
    assert run(monkeypatch, "medseg measure chest.nii.gz lungs.nii.gz -o m.txt") == 2
    assert "m.txt" in capsys.readouterr().err
    (desk / "scan.json").write_text("{}")
    assert run(monkeypatch, "medseg measure chest.nii.gz scan.json -o scan.json") == 2
    assert "replace the input" in capsys.readouterr().err


def test_lesions_methods_and_a_picture(desk, monkeypatch, capsys):
    import numpy as np

    truth = Thorax().truth(GRID)
    Mask(np.isin(truth.array, (3, 4)).astype(np.uint8), GRID, ()).save(desk / "nodules.nii.gz")
    options = "--kind lung --lesions nodules.nii.gz --methods methods.md --picture look.png --correct-air"
    assert run(monkeypatch, f"medseg measure chest.nii.gz lungs.nii.gz -o m.csv {options}") == 0
    assert "lesion_1" in (desk / "m.csv").read_text()
    assert "@nelson2009" in (desk / "methods.md").read_text()
    assert (desk / "look.png").read_bytes()[1:4] == b"PNG"
    assert "lung-" not in capsys.readouterr().out
    assert run(monkeypatch, "medseg measure chest.nii.gz lungs.nii.gz -o m.csv --picture lungs.nii.gz") == 2


def test_a_preview_of_measures_has_the_width_that_was_asked_for(desk, monkeypatch, capsys):
    from PIL import Image

    command = "medseg preview chest.nii.gz lungs.nii.gz --measure lung --width 420"
    assert run(monkeypatch, f"{command} -o look.png") == 0
    assert Image.open(desk / "look.png").width == 420
    assert "slices of 12 mm" in capsys.readouterr().err
    assert run(monkeypatch, f"{command} -o look.png") == 0  # its own picture
    assert run(monkeypatch, f"{command} -o lungs.nii.gz") == 2
    assert "replace the input" in capsys.readouterr().err


def test_a_report_by_groups_of_a_clinical_table(desk, monkeypatch, capsys):
    (desk / "out").mkdir()
    header = "case,patient,study,model,status,reason,message,mask,warnings,both_lungs_mean_hu"
    rows = [f"c{n},p{n},,m,done,,,,,{-800 - n}" for n in range(4)]
    (desk / "out" / "results.csv").write_text("\n".join([header, *rows]))
    (desk / "clinic.csv").write_text("patient;copd\np0;yes\np1;no\np2;yes\np3;no\n")
    assert run(monkeypatch, "medseg report out --clinical clinic.csv --group copd") == 0
    assert "column copd of clinic.csv" in (desk / "out" / "report.html").read_text()
    assert run(monkeypatch, "medseg report out --clinical clinic.csv --group age") == 2
    assert "there is no column 'age'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "name", "content"),
    [
        ("-o", "mine.csv", b"patient,age\n1,60\n"),
        ("-o", "mine.json", b'{"mine": [1, 2]}'),
        ("-o", "mine.json", b"[" * 100_000),
        ("-o", "empty.csv", b""),
        ("-o m.csv --methods", "mine.md", b"# My methods"),
        ("-o m.csv --picture", "mine.png", b"my picture"),
    ],
)
def test_files_of_another_origin_are_not_replaced(desk, monkeypatch, capsys, option, name, content):
    (desk / name).write_bytes(content)
    assert run(monkeypatch, f"medseg measure chest.nii.gz lungs.nii.gz {option} {name} --kind lung") == 2
    assert "was not written by medseg" in capsys.readouterr().err
    assert (desk / name).read_bytes() == content


def test_own_tables_and_pictures_are_replaced_and_edited_methods_are_not(desk, monkeypatch, capsys):
    outputs = "--methods methods.md --picture look.png"
    for name in ("m.csv", "m.json", "m.csv"):
        command = f"medseg measure chest.nii.gz lungs.nii.gz -o {name} --kind lung {outputs}"
        assert run(monkeypatch, command) == 0
    assert (desk / "m.csv").stat().st_size > 1000
    edited = (desk / "methods.md").read_text().replace("HU", "Hounsfield units")
    (desk / "methods.md").write_text(edited)
    assert run(monkeypatch, command) == 2
    assert "was changed since" in capsys.readouterr().err
    assert (desk / "methods.md").read_text() == edited


def test_a_pair_with_a_registered_scan(desk, monkeypatch, capsys):
    command = "medseg measure chest.nii.gz lungs.nii.gz -o pair.csv --expiration chest.nii.gz lungs.nii.gz"
    more = "--kind lung --registration chest.nii.gz --methods pair.md"
    assert run(monkeypatch, f"{command} {more}") == 0
    assert "air trapping" in capsys.readouterr().out
    assert "prm_normal_percent" in (desk / "pair.csv").read_text().splitlines()[0]
    assert "@galban2012" in (desk / "pair.md").read_text()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("--lesions lungs.nii.gz --earlier-lesions lungs.nii.gz", "--days"),
        ("--lesions lungs.nii.gz --earlier-lesions lungs.nii.gz --days 0", "--days 0"),
        ("--radiomics-settings lungs.nii.gz", "without --radiomics"),
        ("--days 90", "lesions of both scans"),
        ("--registration simpleitk", "--registration without --expiration"),
        ("--expiration chest.nii.gz lungs.nii.gz --correct-air", "--correct-air does not go with"),
        ("--expiration chest.nii.gz lungs.nii.gz --lesions lungs.nii.gz", "--lesions does not go with"),
    ],
)
def test_options_that_do_not_go_together(desk, monkeypatch, capsys, options, named):
    assert run(monkeypatch, f"medseg measure chest.nii.gz lungs.nii.gz -o m.csv {options}") == 2
    assert named in capsys.readouterr().err


def test_growth_between_two_dates(desk, monkeypatch, capsys):
    import numpy as np

    marks = Thorax().truth(GRID).array == 3
    earlier, later = marks.astype(np.uint8), (marks | np.roll(marks, 1, axis=2)).astype(np.uint8)
    Mask(earlier, GRID, ()).save(desk / "first.nii.gz")
    Mask(later, GRID, ()).save(desk / "second.nii.gz")
    options = "--kind lung --lesions second.nii.gz --earlier-lesions first.nii.gz --days 92 --methods m.md"
    assert run(monkeypatch, f"medseg measure chest.nii.gz lungs.nii.gz -o m.json {options}") == 0
    assert "doubling in" in capsys.readouterr().out
    rows = {
        (row["structure"], row["region"]): row
        for row in json.loads((desk / "m.json").read_text())["measures"]
    }
    volume = GRID.voxel_ml * 1000
    assert rows["lesions", "growth"]["earlier_mm3"] == pytest.approx(earlier.sum() * volume)
    assert rows["lesions", "growth"]["later_mm3"] == pytest.approx(later.sum() * volume)
    assert "92 days" in (desk / "m.md").read_text()
