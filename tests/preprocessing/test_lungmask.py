"""The input of lungmask's network, on paper and compared with scipy."""

import numpy as np
from scipy import ndimage

from medseg.preprocessing.lungmask import BodySlice, body_box, body_slice, nearest


def test_the_box_of_the_body_leaves_a_table_out():
    axial = np.full((128, 128), -1000, dtype=np.int16)
    axial[30:90, 20:110] = 40
    axial[100:102, 10:120] = 40  # two rows are opened away
    assert body_box(axial) == (slice(30, 90), slice(20, 110))


def test_air_in_the_body_belongs_to_it():
    axial = np.full((128, 128), 40, dtype=np.int16)
    axial[50:70, 50:70] = -900
    # A closing erodes from the faces of the image, one voxel.
    assert body_box(axial) == (slice(1, 127), slice(1, 127))


def test_a_slice_of_air_is_kept_whole():
    assert body_box(np.full((70, 90), -1000, dtype=np.int16)) == (slice(0, 70), slice(0, 90))


def test_intensities_are_clipped_and_scaled():
    axial = np.full((128, 128), 3000, dtype=np.int16)
    axial[:, 64:] = -212  # (-212 + 1024) / 1624 = 0.5
    image = body_slice(axial).image
    assert (image.shape, image.dtype) == ((256, 256), np.float32)
    assert (image[0, 0], image[0, -1]) == (1, 0.5)


def test_integers_are_rounded_as_scipy_rounds_them():
    axial = np.random.default_rng(0).integers(-300, 300, (150, 140), dtype=np.int16)
    part = body_slice(axial)
    cropped = axial[part.box]
    wanted = ndimage.zoom(cropped, [256 / n for n in cropped.shape], order=1)
    np.testing.assert_array_equal(np.rint(part.image * 1624 - 1024), wanted)


def test_labels_go_back_to_the_box():
    part = BodySlice(np.zeros((256, 256), dtype=np.float32), (slice(5, 105), slice(0, 300)))
    labels = np.random.default_rng(0).integers(0, 3, (256, 256), dtype=np.uint8)
    np.testing.assert_array_equal(
        part.restored(labels), ndimage.zoom(labels, [100 / 256, 300 / 256], order=0)
    )
    assert nearest(3, 5).tolist() == [0, 1, 1, 2, 2]  # 0, 0.5, 1, 1.5 and 2, half rounded up
