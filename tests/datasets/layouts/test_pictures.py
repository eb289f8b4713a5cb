"""Folders of pictures have the layouts of pairs; beside scans, pictures are previews."""

import numpy as np
from PIL import Image

import medseg
from medseg import Grid, Volume


def picture(path, value=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((3, 4), value, np.uint8)).save(path)


def scan(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Volume(np.zeros((4, 3, 2), np.int16), Grid((4, 3, 2), np.eye(4))).save(path)


def found(folder):
    return [
        (case.id, case.images[0].name, None if case.label is None else case.label.name)
        for case in medseg.make_manifest(folder).cases
    ]


def test_images_and_masks_in_two_folders(tmp_path):
    for name in ("a", "b"):
        picture(tmp_path / "images" / f"{name}.jpg")
        picture(tmp_path / "masks" / f"{name}.png")
    assert found(tmp_path) == [("a", "a.jpg", "a.png"), ("b", "b.jpg", "b.png")]


def test_images_and_masks_in_one_folder(tmp_path):
    picture(tmp_path / "a.tif")
    picture(tmp_path / "a_mask.png")
    assert found(tmp_path) == [("a", "a.tif", "a_mask.png")]


def test_pictures_beside_scans_are_previews(tmp_path):
    for folder in ("imagesTr", "labelsTr"):
        scan(tmp_path / folder / "a.nii.gz")
        picture(tmp_path / folder / "a.png")
    picture(tmp_path / "previews" / "a.png")
    assert found(tmp_path) == [("a", "a.nii.gz", "a.nii.gz")]
