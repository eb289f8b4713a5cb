from __future__ import annotations

from pathlib import Path

import matplotlib.image as images
import numpy as np
import pytest
from support.augmentation import checked
from support.commands import invoke
from support.worlds import phantoms, tiny

from medseg.images.palette import COLOURS
from medseg.visualization.overlays import samples


def output_of(*arguments: object, code: int = 0) -> str:
    """What a command says on stderr."""
    return invoke(*arguments, code=code)[1]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cases")
    rows = ["id,image,label,split"]
    for case in phantoms(folder, "val", "train"):
        assert case.label is not None
        rows.append(f"{case.id},{case.images[0].name},{case.label.name},{case.split}")
    (folder / "cases.csv").write_text("\n".join(rows) + "\n")
    return folder / "cases.csv"


@pytest.mark.parametrize("dims", [2, 3])
def test_the_command_draws_a_patch_and_its_changes(manifest, tmp_path, dims):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(checked(tiny(dims), "full").yaml())
    picture, other = tmp_path / "augmented.png", tmp_path / "other.png"
    assert "case case_1, one patch with 15 random augmentations" in output_of(
        "augment", recipe, manifest, "-o", picture
    )
    drawn = images.imread(picture)
    assert drawn.shape[1] == 768  # four tiles of 2.4 inches at 80 dots an inch
    assert near(drawn, COLOURS[0]).size or near(drawn, COLOURS[1]).size
    output_of("augment", recipe, manifest, "-o", other)
    assert other.read_bytes() == picture.read_bytes()
    output_of("augment", recipe, manifest, "-o", other, "--case", "case_0", "--seed", 1, "--count", 2)
    assert images.imread(other).shape[1] == 384


def test_cases_that_do_not_exist_are_refused(manifest, tmp_path):
    picture = tmp_path / "augmented.png"
    assert "no case 'none'" in output_of(
        "augment", "lung_ct_2d", manifest, "-o", picture, "--case", "none", code=2
    )
    text = manifest.read_text().replace(",train", ",test")
    untrained = manifest.with_name("untrained.csv")
    untrained.write_text(text)
    assert "no case has split 'train'" in output_of("augment", "lung_ct_2d", untrained, "-o", picture, code=2)
    assert not picture.exists()


def near(picture: np.ndarray, colour: str) -> np.ndarray:
    wanted = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.argwhere(np.abs(picture[..., :3] - wanted).max(-1) < 0.12)


def test_samples_are_shown_as_radiologists_look_at_them(tmp_path):
    """What is right and in front (large x, large y) is drawn top left; what is unknown is outlined too."""
    label = np.zeros((1, 2, 20, 30), np.float32)
    label[0, 0, 14:18, 22:28] = 1
    label[0, 1, 2:5, 3:8] = -1
    gradient = np.linspace(0, 1, 600, dtype=np.float32).reshape(1, 20, 30)
    names = ["a", "b", "c", "d", "e", "f", "g"]
    picture = images.imread(
        samples(gradient, label, tmp_path / "s.png", names=names[:2], pixel_mm=(2.0, 1.0))
    )
    tile = picture[: picture.shape[0] - 45]
    rows, columns = near(tile, COLOURS[0]).T
    assert rows.mean() < tile.shape[0] / 2
    assert columns.mean() < tile.shape[1] / 2
    # 20 voxels of 2 mm are wider than 30 of 1 mm are high.
    assert tile.shape[1] / tile.shape[0] == pytest.approx(40 / 30, abs=0.05)
    assert near(tile, "#8A949E").size
    many = samples(
        np.zeros((3, 20, 30), np.float32),
        np.zeros((3, 7, 20, 30), np.float32),
        tmp_path / "m.png",
        names=names,
        pixel_mm=(1.0, 1.0),
    )
    assert many.is_file()
