import io

import numpy as np
import pytest
from PIL import Image

from medseg import Grid, Label, Mask, Volume
from medseg.visualization.thumbnails import encoded, line, places, read, read_slices, thumbnail

LABELS = (Label(name="a", values=(1,)), Label(name="b", values=(2,)))


def tinted(picture: np.ndarray, *, blue: bool) -> np.ndarray:
    """Positions of pixels more blue than red (the first label), or more red than blue (the second)."""
    more = picture[..., 2].astype(int) - picture[..., 0]
    return np.argwhere((more if blue else -more) > 40)


@pytest.mark.parametrize("axcodes", ["RAS", "LPI", "SAL"])
def test_the_patients_right_is_on_the_left(axcodes):
    """A label at the right, front and top of the body, in scans of several orders of axes."""
    array = np.zeros((80, 60, 40), np.uint8)
    array[60:75, 40:55, 30:38] = 1  # RAS: to the right, the front and the top
    array[5:20, 40:55, 30:38] = 2
    grid = Grid(array.shape, np.diag([2.0, 2.0, 4.0, 1.0]))
    scan = Volume(np.full(array.shape, -1000, np.int16), grid).oriented(axcodes)
    mask = Mask(array, grid, LABELS).oriented(axcodes)
    picture = np.asarray(Image.open(io.BytesIO(thumbnail(scan, mask, pixels=160))).convert("RGB"))
    # 160 x 120 x 160 mm; the voxels of an axial plane are square, a coronal one is as high as it is wide.
    height, width = picture.shape[:2]
    assert width == pytest.approx(height * (160 + 160 + 120) / 160, abs=9)
    axial = picture[:, : width * 160 // 440]
    right, left = tinted(axial, blue=True), tinted(axial, blue=False)
    assert right[:, 1].mean() < 0.3 * axial.shape[1] < left[:, 1].mean()
    assert right[:, 0].mean() < 0.4 * axial.shape[0]  # the front is up
    sagittal = picture[:, width * 320 // 440 :]
    pixels = np.concatenate([tinted(sagittal, blue=True), tinted(sagittal, blue=False)])
    assert pixels[:, 0].mean() < 0.35 * height  # the top is up
    assert pixels[:, 1].mean() < 0.5 * sagittal.shape[1]  # the front is on the left


def test_pictures_are_read_back_and_incomplete_lines_skipped(tmp_path):
    path = tmp_path / "thumbnails.jsonl"
    path.write_text(line("a", "m", encoded(b"one")) + line("a", "m", encoded(b"two")) + '{"case": "b", "mo')
    assert read([path]) == {("a", "m"): encoded(b"two")}


def test_slices_are_read_from_the_last_line_of_a_case(tmp_path):
    path = tmp_path / "thumbnails.jsonl"
    old, new = ({"number": n, "of": 9, "mm": 1.5, "image": "eA=="} for n in (1, 2))
    path.write_text(line("a", "m", "x", [old]) + line("b", "m", "ä") + line("a", "m", "y", [new]))
    found = places([path])
    assert read_slices(found["a", "m"]) == [new]
    assert read_slices(found["b", "m"]) == []


def test_planes_have_letters_and_a_scale():
    grid = Grid((80, 60, 40), np.diag([2.0, 2.0, 4.0, 1.0]))
    scan = Volume(np.full(grid.shape, -1400, np.int16), grid)
    picture = np.asarray(Image.open(io.BytesIO(thumbnail(scan, pixels=160))).convert("L"))
    bright = picture > 150
    axial, coronal = bright[:, :80], bright[:, 82:162]
    for name, part in (
        ("R", axial[:, :12]),
        ("L", axial[:, -12:]),
        ("S", coronal[:14]),
        ("I", coronal[-14:]),
    ):
        assert part.any(), name
    # 80 voxels for 160 mm: half a pixel in a mm, so 25 pixels for 50 mm.
    assert axial[45:60].sum(1).max() == pytest.approx(25, abs=4)
