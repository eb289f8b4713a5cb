"""Checks of pictures before a training."""

import numpy as np
from PIL import Image
from support.pictures import CELLS, cell_folder

import medseg
from medseg.recipe import Recipe

RECIPE = Recipe.parse(CELLS)


def manifest(folder, count=4):
    path = folder / "cases.csv"
    rows = [f"c{n},images/c{n}.png,masks/c{n}.png,{'train' if n else 'val'}\n" for n in range(count)]
    path.write_text("id,image,label,split\n" + "".join(rows))
    return path


def test_how_pictures_were_read_is_said_once(tmp_path):
    found = medseg.check(manifest(cell_folder(tmp_path / "d", 4)), RECIPE).findings
    assert [(each.case, each.code, each.severity) for each in found] == [(None, "read-as", "warning")]
    assert found[0].problem.startswith("binary-mask, 4 of 4 cases: the mask has the values 0 and 255")


def test_colours_need_no_recipe(tmp_path):
    folder = cell_folder(tmp_path / "d", 4, top=1)
    for path in (folder / "images").iterdir():
        grey = np.asarray(Image.open(path))
        Image.fromarray(np.stack([grey, grey // 2, 255 - grey], -1)).save(path)
    assert medseg.check(manifest(folder)).findings == ()
    colour = Recipe.parse(CELLS.replace("[grey]", "[red, green, blue]"))
    assert medseg.check(manifest(folder), colour).findings == ()
    assert {each.refusal for each in medseg.check(manifest(folder), RECIPE).findings} >= {"several-channels"}
