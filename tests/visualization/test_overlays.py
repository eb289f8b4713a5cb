from __future__ import annotations

import matplotlib.image as images
import numpy as np
import pytest

from medseg.errors import InputWarning, UsageError
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.palette import BLUE, COLOURS, VERMILLION
from medseg.images.volume import Mask, Source, Volume
from medseg.phantom.thorax import LABELS, Thorax, default_grid
from medseg.visualization import overlays, thumbnails

GRID = default_grid((5.0, 5.0, 6.0), "PSL")


def near(picture: np.ndarray, colour: str) -> np.ndarray:
    """Columns of the pixels of a colour (of its hue; antialiasing mixes it with grey)."""
    wanted = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.argwhere(np.abs(picture[..., :3] - wanted).max(-1) < 0.12)


def test_left_is_right_in_the_picture(tmp_path):
    """Radiological view: the left lung's contour lies right of the right lung's in the axial plane."""
    scan, truth = Thorax().scan(GRID), Thorax().truth(GRID)
    path = overlays.overlay(scan, Mask(truth.array, truth.grid, LABELS[:2]), tmp_path / "o.png", title="t")
    picture = images.imread(path)
    axial = picture[: int(0.88 * len(picture)), : picture.shape[1] // 3]
    right, left = (near(axial, colour)[:, 1].mean() for colour in COLOURS[:2])
    assert right < left - 30
    assert path.stat().st_size < 300_000


def test_equal_pictures_are_equal_bytes(tmp_path):
    scan, truth = Thorax().scan(GRID), Thorax().truth(GRID)
    one, two = (overlays.overlay(scan, truth, tmp_path / n).read_bytes() for n in ("a.png", "b.png"))
    assert one == two
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_an_empty_mask_is_drawn_too(tmp_path):
    mr = Thorax().scan(GRID, modality="MR")
    empty = Mask(np.zeros(GRID.shape, np.uint8), GRID, (Label(name="tumour", values=(1,)),))
    assert overlays.overlay(mr, empty, tmp_path / "o.png", window_hu=(0, 900)).is_file()


def test_a_single_slice_is_drawn(tmp_path):
    # Its coronal and sagittal planes are one voxel high; a contour needs two.
    grid = Grid.from_spacing((30, 20, 1), (2, 2, 5))
    array = np.zeros(grid.shape, np.uint8)
    array[5:15, 5:15] = 1
    mask = Mask(array, grid, LABELS[:1])
    assert overlays.overlay(Volume(np.zeros(grid.shape, np.int16), grid), mask, tmp_path / "o.png").is_file()


def test_a_structure_cut_by_the_edge_of_the_scan_has_an_outline(tmp_path):
    # Everything is labelled, so the outline is the frame of each of the three planes.
    grid = Grid.from_spacing((30, 20, 24), (2, 2, 2))
    mask = Mask(np.ones(grid.shape, np.uint8), grid, LABELS[:1])
    path = overlays.overlay(Volume(np.zeros(grid.shape, np.int16), grid), mask, tmp_path / "o.png")
    picture = images.imread(path)[: int(0.88 * 448)]
    for third in np.array_split(picture, 3, axis=1):
        blue = third[..., 2] - third[..., 0] > 0.2  # the label's colour; all else is grey
        assert blue.sum() > 800


def test_every_label_is_in_the_legend(tmp_path):
    grid = Grid.from_spacing((10, 10, 10))  # 1 ml
    labels = tuple(Label(name=f"part_{n}", values=(n,)) for n in range(1, 21))
    figure = overlays._figure(15, 5.6)
    overlays._legend(figure, Mask(np.ones(grid.shape, np.uint8), grid, labels[:16]))
    texts = [text.get_text() for text in figure.texts]
    assert texts[:2] == ["■ part 1  1.0 ml", "■ part 2  0.0 ml"]
    assert len(texts) == 16
    overlays._legend(figure := overlays._figure(15, 5.6), Mask(np.ones(grid.shape, np.uint8), grid, labels))
    assert [figure.texts[-1].get_text(), len(figure.texts)] == ["+ 5 more", 16]


def test_the_order_of_the_masks_axes_and_rounding_do_not_matter(tmp_path):
    scan = Thorax().scan(GRID)
    mask = Mask(Thorax().truth(GRID).array, GRID, LABELS[:2])
    affine = GRID.affine.copy()
    affine[:3, 3] += 0.2
    rounded = Mask(mask.array, Grid(GRID.shape, affine), LABELS[:2])
    same = overlays.overlay(scan, mask, tmp_path / "same.png").read_bytes()
    for codes in ("RAS", "LPI", "SAR"):
        assert overlays.overlay(scan, mask.oriented(codes), tmp_path / "o.png").read_bytes() == same
    with pytest.warns(InputWarning, match="up to 0.35 mm"):
        assert overlays.overlay(scan, rounded.oriented("RAS"), tmp_path / "o.png").read_bytes() == same


def test_a_mask_of_another_scan_is_refused(tmp_path):
    grid = Grid.from_spacing((4, 4, 4))
    moved = Grid.from_spacing((4, 4, 4), origin_mm=(0, 0, 2))
    mask = Mask(np.zeros((4, 4, 4), np.uint8), moved, (Label(name="x", values=(1,)),))
    with pytest.raises(UsageError, match="2 mm apart"):
        overlays.overlay(Volume(np.zeros((4, 4, 4), np.int16), grid), mask, tmp_path / "o.png")
    assert list(tmp_path.iterdir()) == []


def test_default_windows():
    grid = Grid.from_spacing((10, 10, 10))
    ct = Volume(np.full((10, 10, 10), -1000, np.int16), grid)
    assert thumbnails.window(ct) == thumbnails.LUNG_WINDOW_HU
    mr = Volume(np.arange(1000, dtype=np.int16).reshape(10, 10, 10), grid)
    assert thumbnails.window(mr) == pytest.approx((9.99, 989.01))
    flat = Volume(np.zeros((10, 10, 10), np.int16), grid)
    assert thumbnails.window(flat) == (0, 1)


def test_history_skips_empty_cells(tmp_path):
    table = tmp_path / "history.csv"
    table.write_text("epoch,seconds,train_loss,val_dice,val_dice_lungs\n1,2,0.9,,\n2,4,0.5,0.8,0.8\n")
    assert images.imread(overlays.history(table, tmp_path / "h.png")).shape[2] >= 3
    table.write_text("epoch,seconds,train_loss\n")
    assert overlays.history(table, tmp_path / "none.png").is_file()


def test_losses_are_drawn_beside_each_other_on_white(tmp_path):
    table = tmp_path / "history.csv"
    table.write_text("epoch,train_loss,val_loss,val_dice_lungs\n1,1.2,1.3,0.2\n2,0.5,0.8,0.8\n")
    picture = images.imread(overlays.history(table, tmp_path / "h.png"))
    left, right = np.array_split(picture, 2, axis=1)
    assert (picture[0, :, :3] == 1).all()
    assert (picture[:, :, :3].min(2) > 0.98).mean() > 0.85
    for colour in (BLUE, VERMILLION):
        assert len(near(left, colour)) > 50
        assert len(near(right, colour)) == 0


def test_a_mask_shows_itself_over_its_scan(tmp_path):
    scan, truth = Thorax().scan(GRID), Thorax().truth(GRID)
    path = scan.save(tmp_path / "scan.nii.gz")
    mask = Mask(truth.array, truth.grid, LABELS[:2], Source(path=path))
    shown = mask.preview()._repr_png_()
    assert shown == mask.preview(scan)
    (tmp_path / "shown.png").write_bytes(shown)
    picture = images.imread(tmp_path / "shown.png")
    assert len(near(picture, COLOURS[0])) > 100
    with pytest.raises(UsageError) as refused:
        Mask(truth.array, truth.grid, LABELS[:2]).preview()
    assert refused.value.reason == "no-source"


@pytest.mark.parametrize("name", ["scan", "truth"])
def test_cards_list_the_properties(name):
    image = getattr(Thorax(), name)(GRID)
    card = image._repr_html_()
    assert "data:image/webp;base64," in card
    assert GRID.axcodes in card
    assert ("right lung" in card or "right_lung" in card) == (name == "truth")


def test_slices_are_spaced_evenly_through_the_labelled_region():
    array = np.zeros((4, 4, 40), np.uint8)
    array[1:3, 1:3, 10:31] = 1  # from 10 to 30: the middles of two equal parts are 25 and 15
    mask = Mask(array, Grid(array.shape, np.eye(4)), (Label(name="a", values=(1,)),))
    assert overlays._through(mask, 2) == [25, 15]
    assert overlays._through(mask, 0) == []
