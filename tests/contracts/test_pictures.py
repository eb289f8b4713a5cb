"""Pictures from a folder to a report: plan, check, train, segment, evaluate, batch, preview."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.pictures import CELLS, cell_folder, cells

import medseg
from medseg.errors import InputRefused, UsageError
from medseg.recipe import Recipe

SPLITS = ("train", "train", "train", "train", "val", "test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder of pictures with manifest, recipe and a model that was trained on them."""
    place = cell_folder(tmp_path_factory.mktemp("pictures") / "data")
    rows = [f"c{n},images/c{n}.png,masks/c{n}.png,{split}" for n, split in enumerate(SPLITS)]
    (place / "cases.csv").write_text("\n".join(["id,image,label,split", *rows, ""]))
    (place / "cells.yaml").write_text(CELLS)
    with medseg.collect_notices() as notices:
        medseg.train(place / "cells.yaml", place / "cases.csv", place / "run", progress=False)
    assert [each.reason for each in notices] == ["read-as"]  # once for all, not for each mask
    return place


def model(folder: Path) -> Path:
    return folder / "run" / "model.safetensors"


def dice(one, other) -> float:
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


def test_a_picture_in_a_picture_out(folder, tmp_path):
    path = folder / "images" / "c5.png"
    made = medseg.segment_file(path, tmp_path / "mask.png", model=model(folder))
    image, mask, truth = (
        np.asarray(Image.open(place)) for place in (path, made.path, folder / "masks" / "c5.png")
    )
    assert mask.shape == image.shape
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 1}
    assert dice(mask > 0, truth > 0) > 0.95  # the pixels themselves, by no reader of medseg
    facts = json.loads((tmp_path / "mask.json").read_text())
    assert facts["pixels"] == {"cell": int((mask == 1).sum())}


@pytest.mark.parametrize("link", ["same", "symbolic", "hard"])
def test_the_input_is_never_replaced(folder, tmp_path, link):
    path = folder / "images" / "c5.png"
    before = path.read_bytes()
    output = path if link == "same" else tmp_path / "mask.png"
    if link == "symbolic":
        output.symlink_to(path)
    elif link == "hard":
        output.hardlink_to(path)
    with pytest.raises(UsageError) as caught:
        medseg.segment_file(path, output, model=model(folder))
    assert caught.value.reason == "overwrites-input"
    assert path.read_bytes() == before


def test_every_kind_of_picture_gives_the_same_mask(folder, tmp_path):
    image = Image.open(folder / "images" / "c5.png")
    expected = medseg.segment(folder / "images" / "c5.png", model=model(folder)).array
    image.save(tmp_path / "a.tif", compression="tiff_lzw")
    image.convert("RGB").save(tmp_path / "b.png")
    exif = Image.Exif()
    exif[274] = 6  # stored turned by 90 degrees to the left, shown turned back
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "c.png", exif=exif)
    for name in ("a.tif", "b.png", "c.png"):
        with medseg.collect_notices():
            found = medseg.segment(tmp_path / name, model=model(folder))
        assert np.array_equal(found.array, expected), name


def test_scores_are_those_of_the_pixels(folder, tmp_path):
    with medseg.collect_notices() as notices:
        found = medseg.evaluate(folder / "cases.csv", tmp_path / "e", model=model(folder), split="all")
    assert [each.reason for each in notices if each.reason == "binary-mask"] == ["binary-mask"]
    for case, score in zip(found.table["case"], found.table["dice"], strict=True):
        mask = np.asarray(Image.open(tmp_path / "e" / "masks" / f"{case}.png"))
        truth = np.asarray(Image.open(folder / "masks" / f"{case}.png"))
        assert score == pytest.approx(dice(mask > 0, truth > 0))
    with medseg.collect_notices():
        again = medseg.evaluate(
            folder / "cases.csv", masks=tmp_path / "e" / "masks", labels=Recipe.parse(CELLS), split="all"
        )
    assert again.table["dice"].tolist() == found.table["dice"].tolist()


def test_a_batch_of_pictures_and_its_report(folder, tmp_path):
    one = medseg.BatchResources(workers=1)
    done = medseg.batch(folder / "images", tmp_path / "out", model=model(folder), resources=one)
    assert (done.done, done.failures) == (6, ())
    names = sorted(path.name for path in (tmp_path / "out" / "masks").iterdir())
    assert names == [*(f"c{n}.png" for n in range(6)), "labels.json"]
    for number in range(6):
        mask = np.asarray(Image.open(tmp_path / "out" / "masks" / f"c{number}.png"))
        truth = np.asarray(Image.open(folder / "masks" / f"c{number}.png"))
        assert dice(mask > 0, truth > 0) > 0.95
    again = medseg.batch(folder / "images", tmp_path / "out", model=model(folder), resources=one, resume=True)
    assert (again.done, again.skipped) == (0, 6)
    assert "c5" in medseg.report(tmp_path / "out").read_text(encoding="utf-8")


def test_a_preview_of_a_picture(folder, tmp_path):
    mask = medseg.segment(folder / "images" / "c5.png", model=model(folder))
    assert medseg.preview(folder / "images" / "c5.png", mask)[1:4] == b"PNG"
    colour = np.stack([np.asarray(Image.open(folder / "images" / "c5.png"))] * 3, -1)
    colour[..., 0] //= 2
    Image.fromarray(colour).save(tmp_path / "colour.png")
    assert medseg.preview(tmp_path / "colour.png", mask)[1:4] == b"PNG"


def test_a_picture_is_refused_by_other_models_and_scans_by_this_one(folder, tmp_path):
    Image.open(folder / "images" / "c5.png").save(tmp_path / "chest.jpg")
    for name in ("threshold", "lung_ct"):
        with pytest.raises(InputRefused) as caught:
            medseg.segment(tmp_path / "chest.jpg", model=name)
        assert caught.value.reason == "modality"
    scan = medseg.Volume(
        np.zeros((8, 8, 1), np.int16), medseg.Grid((8, 8, 1), np.eye(4)), medseg.Source(modality="CT")
    )
    with pytest.raises(InputRefused, match="the scan is CT") as caught:
        medseg.segment(scan, model=model(folder))
    assert caught.value.reason == "modality"


def test_a_folder_of_pictures_is_planned_and_trained_without_editing(tmp_path):
    data = cell_folder(tmp_path / "data", 5)
    with medseg.collect_notices() as notices:
        plan = medseg.plan(data, medseg.PlanOptions(measure=False))
    assert [each.reason for each in notices].count("binary-mask") == 1
    recipe = plan.recipe
    assert (recipe.modality, recipe.channels, recipe.spatial_dims) == ("picture", ("grey",), 2)
    assert recipe.prepare.spacing_mm == (1, 1, 1)
    assert [label.values for label in recipe.labels] == [(1,)]
    short = recipe.train.model_copy(update={"epochs": 1, "steps_per_epoch": 1})
    assert plan.manifest is not None
    quick = recipe.model_copy(update={"train": short})
    with medseg.collect_notices():
        medseg.train(quick, plan.manifest, tmp_path / "run", progress=False)
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_colours_from_the_folder_to_the_scores(tmp_path):
    data = cell_folder(tmp_path / "data", 5)
    for path in (data / "masks").iterdir():
        inside = np.asarray(Image.open(path)) > 0
        colours = np.where(inside[..., None], np.uint8([255, 0, 0]), np.uint8([255, 255, 255]))
        colours[:, :5] = (0, 0, 255)  # unknown
        Image.fromarray(colours).save(path)
        image = data / "images" / path.name
        grey = np.asarray(Image.open(image))
        Image.fromarray(np.stack([grey, grey // 2, 255 - grey], -1)).save(image)
    (data / "colours.yaml").write_text("background: '#ffffff'\nnucleus: '#ff0000'\nignore: '#0000ff'\n")
    recipe = medseg.plan(data, medseg.PlanOptions(measure=False)).recipe
    assert recipe.channels == ("red", "green", "blue")
    assert [(label.name, label.values) for label in recipe.labels] == [("nucleus", (1,))]
    assert recipe.ignore_value == 2
    assert Recipe.parse(recipe.yaml()) == recipe
    cases = medseg.make_manifest(data)
    assert medseg.check(cases, recipe).findings[0].code == "no-training-case"
    truth = medseg.read_mask(data / "masks" / "c0.png", recipe.labels, coding=recipe.coding)
    assert set(np.unique(truth.array)) == {0, 1, 2}
    assert (truth.array[:5] == 2).all()


STAINS = """
name: stains
modality: picture
channels: [red, green, blue]
labels:
  - {name: red_cell, values: [1]}
  - {name: blue_cell, values: [2]}
colours: {background: '#ffffff', red_cell: '#ff0000', blue_cell: '#0000ff'}
prepare:
  spacing_mm: [1, 1, 1]
  intensity: {kind: range}
patch: {size: [32, 32]}
network: {kind: unet, widths: [8, 16], norm: batch}
loss: {kind: dice_ce}
augment: none
train: {epochs: 3, steps_per_epoch: 25, batch_size: 4, learning_rate: 0.01, seed: 1}
"""
PAINT = np.uint8([(255, 255, 255), (255, 0, 0), (0, 0, 255)])


def stained(folder: Path, count: int) -> Path:
    """A folder of pictures in which cells of equal brightness are red on the left and blue on the right."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    random = np.random.default_rng(2)
    for number, (_, cell) in enumerate(cells(count, seed=6)):
        values = cell.copy()
        values[:, cell.shape[1] // 2 :] *= 2
        image = 60 + random.normal(0, 12, (*cell.shape, 3))
        image[values == 1, 0] += 120
        image[values == 2, 2] += 120
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / "images" / f"s{number}.png")
        Image.fromarray(PAINT[values]).save(folder / "masks" / f"s{number}.png")
    return folder


def test_a_batch_of_pictures_in_colour_with_thumbnails_and_a_report(tmp_path):
    data = stained(tmp_path / "data", 6)
    rows = [f"s{n},images/s{n}.png,masks/s{n}.png,{split}" for n, split in enumerate(SPLITS)]
    (data / "cases.csv").write_text("\n".join(["id,image,label,split", *rows, ""]))
    (data / "stains.yaml").write_text(STAINS)
    medseg.train(data / "stains.yaml", data / "cases.csv", tmp_path / "run", progress=False)

    (data / "images" / "broken.png").write_bytes((data / "images" / "s0.png").read_bytes()[:200])
    out, one = tmp_path / "out", medseg.BatchResources(workers=1)
    done = medseg.batch(data / "images", out, model=model(tmp_path), resources=one)
    assert (done.done, done.failures) == (6, ("broken",))

    names = sorted(path.name for path in (out / "masks").iterdir())
    assert names == ["labels.json", *(f"s{n}.png" for n in range(6))]
    for number in range(6):
        mask = np.asarray(Image.open(out / "masks" / f"s{number}.png"))
        truth = np.asarray(Image.open(data / "masks" / f"s{number}.png"))
        assert mask.shape == truth.shape[:2]
        for value in (1, 2):
            assert dice(mask == value, (truth == PAINT[value]).all(-1)) > 0.9

    lines = [json.loads(line) for line in (out / "thumbnails.jsonl").read_text().splitlines()]
    assert sorted(line["case"] for line in lines) == [f"s{n}" for n in range(6)]
    for line in lines:
        shown = Image.open(io.BytesIO(base64.b64decode(line["image"])))
        width, height = shown.size
        assert (width - 2) / height == pytest.approx(64 / 48, abs=0.02)  # with a border of two columns
        pixels = np.asarray(shown.convert("RGB")).astype(int)
        assert (np.ptp(pixels, axis=-1) > 60).sum() > 50  # contours in colour on grey

    page = medseg.report(out).read_text(encoding="utf-8")
    assert all(name in page for name in ("broken", "red cell", "blue cell", *(f"s{n}" for n in range(6))))
