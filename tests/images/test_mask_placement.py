"""A cropped mask on the grid of its scan."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from medseg.errors import InputRefused, InputWarning
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.mask_placement import placed_on, resampled_on
from medseg.images.volume import Mask
from medseg.system.notices import collect_notices

pytestmark = pytest.mark.filterwarnings("ignore:.*taken as background:medseg.errors.InputWarning")
SCAN = Grid.from_spacing((10, 12, 8), (0.8, 1.1, 2.5), origin_mm=(-5.0, 3.0, 40.0))
LABELS = (Label(name="node", values=(3,)),)


def cropped(shape, first, array=None) -> Mask:
    """A mask of ones (value 3) whose first voxel is the scan's voxel ``first``."""
    affine = SCAN.affine.copy()
    affine[:3, 3] = SCAN.world(first)
    return Mask(np.full(shape, 3, np.uint8) if array is None else array, Grid(shape, affine), LABELS)


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "SAR", "PIL"])
def test_a_cropped_mask_is_padded_in_every_orientation(axcodes):
    expected = np.zeros(SCAN.shape, np.uint8)
    expected[2:5, 4:8, 6:8] = 3
    found = placed_on(cropped((3, 4, 2), (2, 4, 6)).oriented(axcodes), SCAN)
    assert found.grid == SCAN
    assert np.array_equal(found.array, expected)


def test_background_outside_of_the_scan_is_cropped_and_labels_there_are_refused():
    array = np.zeros((4, 4, 4), np.uint8)
    array[2:, 1, 1] = 3
    found = placed_on(cropped((4, 4, 4), (-2, 0, 0), array), SCAN, crop=True)
    assert found.array.sum() == 6
    assert found.array[0, 1, 1] == found.array[1, 1, 1] == 3
    with pytest.raises(InputRefused, match="a part of it lies outside of the scan"):
        placed_on(cropped((4, 4, 4), (-2, 0, 0), array), SCAN)
    array[1, 1, 1] = 3
    with pytest.raises(InputRefused, match="1 of its labelled voxels lie outside") as refused:
        placed_on(cropped((4, 4, 4), (-2, 0, 0), array), SCAN, crop=True)
    assert refused.value.reason == "grid-mismatch"


@pytest.mark.parametrize("first", [(2.5, 4, 6), (2, 4, 6.22), (2, 4.46, 6)])
def test_voxels_between_those_of_the_scan_are_refused(first):
    with pytest.raises(InputRefused, match="do not coincide") as refused:
        placed_on(cropped((3, 4, 2), first), SCAN)
    assert refused.value.reason == "grid-mismatch"


@pytest.mark.parametrize("shape", [(5, 6, 4), (5, 6, 8), (10, 6, 4)])
def test_a_smaller_mask_with_the_header_of_its_scan_is_refused(shape):
    with pytest.raises(
        InputRefused, match="the scan's affine but fewer voxels along several axes"
    ) as refused:
        placed_on(cropped(shape, (0, 0, 0)), SCAN)
    assert refused.value.reason == "grid-mismatch"


def test_the_first_slices_of_a_scan_are_a_crop():
    found = placed_on(cropped((10, 12, 3), (0, 0, 0)), SCAN)
    assert (found.array[:, :, :3] == 3).all()
    assert not found.array[:, :, 3:].any()


def test_another_spacing_is_refused():
    mask = Mask(np.ones((3, 3, 3), np.uint8), Grid.from_spacing((3, 3, 3), (0.8, 1.1, 5.0)), LABELS)
    with pytest.raises(InputRefused, match="do not coincide"):
        placed_on(mask, SCAN)


def placed_with_notices(mask, grid=SCAN, **options):
    with collect_notices() as notices:
        return placed_on(mask, grid, **options), notices


@pytest.mark.parametrize(
    ("shift_mm", "reasons"),
    [((0.005, 0, 0), []), ((0.02, 0, 0), ["grid-rounded"]), ((0.2, 0.2, 0.4), ["grid-rounded"])],
)
@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "SAR"])
def test_rounded_headers_are_the_same_grid_with_the_distance_in_a_notice(shift_mm, reasons, axcodes):
    # Voxels of 0.8 x 1.1 x 2.5 mm; 0.2, 0.2 and 0.4 mm are 0.49 mm, less than half of any edge.
    affine = SCAN.affine.copy()
    affine[:3, 3] += shift_mm
    array = np.random.default_rng(0).choice([0, 3], SCAN.shape).astype(np.uint8)
    found, notices = placed_with_notices(Mask(array, Grid(SCAN.shape, affine), LABELS).oriented(axcodes))
    assert found.grid == SCAN
    assert np.array_equal(found.array, array)
    assert [notice.reason for notice in notices] == reasons
    if reasons:
        assert f"{np.linalg.norm(shift_mm):.2g} mm" in notices[0].text


@pytest.mark.parametrize("shift_mm", [(0.4, 0, 0), (0, 0.51, 0), (0, 0, 0.51), (0.3, 0.3, 0.3)])
def test_half_a_voxel_or_half_a_millimetre_is_another_grid(shift_mm):
    affine = SCAN.affine.copy()
    affine[:3, 3] += shift_mm
    with pytest.raises(InputRefused, match="do not coincide"):
        placed_on(Mask(np.ones(SCAN.shape, np.uint8), Grid(SCAN.shape, affine), ()), SCAN)


def test_an_error_that_grows_along_an_axis_is_measured_at_its_end():
    """A spacing of 0.7031 for 0.703125 mm is 0.0128 mm off at the end of 511 steps; 0.702 is 0.57 mm."""
    grid = Grid.from_spacing((512, 3, 3), (0.703125, 0.703125, 2.5))
    array = np.ones(grid.shape, np.uint8)
    found, notices = placed_with_notices(
        Mask(array, Grid.from_spacing(grid.shape, (0.7031, 0.703125, 2.5)), ()), grid
    )
    assert found.grid == grid
    assert "up to 0.013 mm" in notices[0].text
    with pytest.raises(InputRefused, match="do not coincide"):
        placed_on(Mask(array, Grid.from_spacing(grid.shape, (0.702, 0.703125, 2.5)), ()), grid)


def test_padding_gives_a_notice_and_cropping_of_background_does_not():
    assert [notice.reason for notice in placed_with_notices(cropped((3, 4, 2), (2, 4, 6)))[1]] == [
        "mask-padded"
    ]
    larger = np.zeros((14, 14, 10), np.uint8)
    larger[5, 5, 5] = 3
    found, notices = placed_with_notices(cropped(larger.shape, (-2, -1, -1), larger), crop=True)
    assert notices == []
    assert np.argwhere(found.array).tolist() == [[3, 4, 4]]


def test_a_mask_of_the_same_shape_that_is_a_voxel_off_belongs_to_another_scan():
    mask = np.zeros(SCAN.shape, np.uint8)
    mask[5, 5, 5] = 3
    with pytest.raises(InputRefused, match=r"a part of it lies outside.* 2.5 mm apart"):
        placed_on(cropped(SCAN.shape, (0, 0, 1), mask), SCAN)


# --- resampling --------------------------------------------------------------------------


def by_itk(mask, grid):
    """Nearest neighbour by SimpleITK, which works in LPS."""
    sitk = pytest.importorskip("SimpleITK")

    def geometry(image, own):
        lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ own.affine
        image.SetSpacing(own.spacing_mm)
        image.SetOrigin(lps[:3, 3].tolist())
        image.SetDirection((lps[:3, :3] / own.spacing_mm).ravel().tolist())
        return image

    moving = geometry(sitk.GetImageFromArray(np.ascontiguousarray(mask.array.T)), mask.grid)
    fixed = geometry(sitk.Image([int(n) for n in grid.shape], sitk.sitkUInt8), grid)
    found = sitk.Resample(moving, fixed, sitk.Transform(), sitk.sitkNearestNeighbor, 0.0)
    return sitk.GetArrayFromImage(found).T


@pytest.mark.parametrize("axcodes", ["RAS", "SPL"])
@pytest.mark.parametrize("angles", [(0, 0, 0), (11, -17, 23)])
def test_resampled_masks_agree_with_simpleitk(angles, axcodes):
    direction = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    grid = Grid.from_spacing(
        (14, 9, 11), (0.77, 1.31, 1.93), origin_mm=(-4.3, 2.1, 41.7), direction=direction
    )
    array = np.random.default_rng(1).choice([0, 3], SCAN.shape).astype(np.uint8)
    mask = Mask(array, SCAN, LABELS)
    with collect_notices() as notices:
        found = resampled_on(mask.oriented(axcodes), grid)
    assert found.grid == grid
    assert np.array_equal(found.array, by_itk(mask, grid))
    assert found.array.any()
    assert [notice.reason for notice in notices] == ["mask-resampled"]


def test_a_coarse_mask_on_a_grid_of_half_its_spacing():
    """On paper: each voxel of 2 mm becomes eight of 1 mm, whose centres lie 0.5 mm off its own."""
    mask = Mask(np.arange(8, dtype=np.uint8).reshape(2, 2, 2), Grid.from_spacing((2, 2, 2), (2, 2, 2)), ())
    fine = Grid.from_spacing((4, 4, 4), (1, 1, 1), origin_mm=(-0.5, -0.5, -0.5))
    with pytest.warns(InputWarning, match=r"0.056 ml became 0.056 ml"):
        found = resampled_on(mask, fine)
    assert np.array_equal(found.array, mask.array.repeat(2, 0).repeat(2, 1).repeat(2, 2))
