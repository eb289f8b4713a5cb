"""A cropped mask on the grid of its scan."""

import numpy as np
import pytest

from medseg.errors import InputRefused
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.mask_placement import placed_on
from medseg.images.volume import Mask

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
    found = placed_on(cropped((4, 4, 4), (-2, 0, 0), array), SCAN)
    assert found.array.sum() == 6
    assert found.array[0, 1, 1] == found.array[1, 1, 1] == 3
    array[1, 1, 1] = 3
    with pytest.raises(InputRefused, match="1 of its labelled voxels lie outside") as refused:
        placed_on(cropped((4, 4, 4), (-2, 0, 0), array), SCAN)
    assert refused.value.reason == "grid-mismatch"


@pytest.mark.parametrize("first", [(2.5, 4, 6), (2, 4, 6.02)])
def test_voxels_between_those_of_the_scan_are_refused(first):
    with pytest.raises(InputRefused, match="do not coincide") as refused:
        placed_on(cropped((3, 4, 2), first), SCAN)
    assert refused.value.reason == "grid-mismatch"


def test_another_spacing_is_refused():
    mask = Mask(np.ones((3, 3, 3), np.uint8), Grid.from_spacing((3, 3, 3), (0.8, 1.1, 5.0)), LABELS)
    with pytest.raises(InputRefused, match="do not coincide"):
        placed_on(mask, SCAN)
