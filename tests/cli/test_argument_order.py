"""Exchanged arguments and files of another kind are named, with the command that mends it."""

from shutil import copyfile

import pytest
from support.commands import invoke

import medseg
from medseg.cli.argument_order import check_recipe_and_manifest
from medseg.errors import UsageError
from medseg.phantom.thorax import Thorax, default_grid
from medseg.recipe import list_recipes


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    grid = default_grid((14.0, 14.0, 20.0), "LPS")
    return Thorax().scan(grid).save(folder / "scan.nii.gz"), Thorax().truth(grid).save(folder / "mask.nii.gz")


@pytest.mark.parametrize(
    "command", [("preview", "-o", "look.png"), ("measure", "-o", "q.csv"), ("view", "--no-browser")]
)
def test_an_exchanged_scan_and_mask_are_named_with_the_right_command(pair, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    scan, mask = pair
    name, *rest = command
    _, err = invoke(name, mask, scan, *rest, code=2)
    assert "the scan and the mask are exchanged" in err
    assert f"→ medseg {name} {scan} {mask} {' '.join(rest)}" in err


@pytest.mark.parametrize(
    "command", [("preview", "-o", "look.png"), ("measure", "-o", "q.csv"), ("view", "--no-browser")]
)
def test_a_scan_in_place_of_a_mask_is_named(pair, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    scan, _ = pair
    name, *rest = command
    _, err = invoke(name, scan, scan, *rest, code=3)
    assert "this is not a mask but a scan" in err
    assert "medseg segment" in err


def test_a_scan_in_place_of_a_mask_is_named_for_each_case(pair, tmp_path):
    scan, mask = pair
    (tmp_path / "masks").mkdir()
    copyfile(scan, tmp_path / "masks" / "a.nii.gz")
    for name, label in (("cases", scan), ("right", mask)):
        (tmp_path / f"{name}.csv").write_text(f"id,image,label,split\na,{scan},{label},test\n")
    evaluate = ("--masks", tmp_path / "masks", "--label", "lung=1")
    for words in (
        ("check", tmp_path / "cases.csv"),
        ("evaluate", tmp_path / "cases.csv", *evaluate, "-o", tmp_path / "e"),
        ("evaluate", tmp_path / "right.csv", *evaluate, "-o", tmp_path / "e"),
    ):
        said = "".join(invoke(*words, code=1))
        assert "but these lie in -1024.." in said
        assert "as those of a scan do → " in said


@pytest.mark.parametrize("command", ["train", "augment"])
def test_an_exchanged_recipe_and_manifest_are_named_with_the_right_command(tmp_path, command):
    cases = tmp_path / "cases.csv"
    cases.write_text("id,image\na,a.nii.gz\n")
    _, err = invoke(command, cases, "phantom_lungs", "-o", tmp_path / "out.png", code=2)
    assert "the recipe and the manifest are exchanged" in err
    assert f"→ medseg {command} phantom_lungs {cases} -o {tmp_path / 'out.png'}" in err


def test_a_recipe_is_no_manifest_and_a_manifest_is_no_recipe(tmp_path):
    cases, mine = tmp_path / "cases.yaml", tmp_path / "mine.yaml"
    cases.write_text("cases:\n- id: a\n  image: a.nii.gz\n")
    mine.write_text(medseg.Recipe.read("phantom_lungs").yaml())
    _, err = invoke("check", "phantom_lungs", code=2)
    assert "this is a recipe, not a manifest" in err
    assert "medseg manifest FOLDER -o cases.csv" in err
    _, err = invoke("check", cases, "--recipe", cases, code=2)
    assert "this is a manifest, not a recipe" in err
    invoke("evaluate", mine, "-o", tmp_path / "e", "--model", "threshold", code=2)
    with pytest.raises(UsageError, match="not a manifest"):
        check_recipe_and_manifest(None, mine)


@pytest.mark.parametrize("name", list_recipes())
def test_shipped_recipes_are_not_mistaken(tmp_path, name):
    mine = tmp_path / "mine.yaml"
    mine.write_text(medseg.Recipe.read(name).yaml())
    for recipe in (name, str(mine)):
        check_recipe_and_manifest(recipe, tmp_path / "cases.csv")
        check_recipe_and_manifest(recipe, tmp_path)


def test_an_address_is_named_whole(tmp_path):
    _, err = invoke("segment", "https://example.org/a.nii.gz", "-o", tmp_path / "m.nii.gz", code=3)
    assert "https://example.org/a.nii.gz:" in err
    assert "download it first" in err


def test_the_report_of_a_table_names_its_folder(tmp_path):
    (tmp_path / "results.csv").write_text("case\n")
    _, err = invoke("report", tmp_path / "results.csv", code=2)
    assert f"→ medseg report {tmp_path}" in err


def test_a_mask_in_place_of_a_scan_is_named(pair, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, mask = pair
    _, err = invoke("segment", mask, "-o", tmp_path / "m.nii.gz", "--model", "lung_ct", code=3)
    assert "this is a mask, not a scan: whole values from 0 to 7" in err
    for command in (("measure", "-o", "q.csv"), ("preview", "-o", "look.png"), ("view", "--no-browser")):
        name, *rest = command
        _, err = invoke(name, mask, mask, *rest, code=2)
        assert "scan and mask are the same file, which is a mask" in err
        assert f"medseg {name} SCAN {mask}" in err
    other = medseg.read_mask(mask, ()).save(tmp_path / "other.nii.gz")
    _, err = invoke("measure", mask, other, "-o", "q.csv")
    assert "the scan has only whole values from 0 to 7, as a mask has" in err


def test_an_image_in_place_of_a_manifest_is_named(pair, tmp_path):
    scan, _ = pair
    _, err = invoke("evaluate", scan, "-o", tmp_path / "e", "--model", "threshold", code=2)
    assert "this is an image, not a manifest" in err
    assert "medseg manifest FOLDER -o cases.csv" in err


def test_the_report_of_a_missing_folder_says_so(tmp_path):
    _, err = invoke("report", tmp_path / "nowhere", code=2)
    assert "there is no such folder" in err
