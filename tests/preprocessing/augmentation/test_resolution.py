from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from support.augmentation import some
from torch.nn import functional as F

from medseg.preprocessing.augmentation.resolution import Blur, LowResolution, coarse, gaussian


@pytest.mark.parametrize("sd", [0.3, 1.0, 2.4])
@pytest.mark.parametrize("shape", [(12, 9), (8, 10, 7)])
def test_blur_agrees_with_scipy_and_keeps_the_mean(sd, shape):
    patch = some(2, *shape)
    done = Blur(3, 1).change(patch, sd)
    expected = [ndimage.gaussian_filter(each.numpy(), sd, mode="reflect", truncate=4.0) for each in patch]
    np.testing.assert_allclose(done, expected, atol=1e-5)
    assert float(done.mean()) == pytest.approx(float(patch.mean()), abs=1e-6)


def test_no_blur_is_the_identity_and_a_wide_blur_is_mirrored_at_both_ends():
    np.testing.assert_array_equal(gaussian(4, 0.0), np.eye(4))
    for n in (1, 2, 5):  # 4 standard deviations reach beyond the line several times
        np.testing.assert_allclose(gaussian(n, 6.0).sum(0), 1)
        np.testing.assert_allclose(gaussian(n, 6.0).sum(1), 1)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.77, 0.99])
@pytest.mark.parametrize("shape", [(12, 9), (8, 10, 7)])
def test_low_resolution_agrees_with_torchs_interpolate(share, shape):
    patch = some(1, *shape)
    done = LowResolution(1, 1).change(patch, share)
    kept = [max(1, round(n * (1 - share))) for n in shape]
    small = F.interpolate(patch[None], size=kept, mode="nearest-exact")
    linear = "bilinear" if len(shape) == 2 else "trilinear"
    expected = F.interpolate(small, size=shape, mode=linear, align_corners=False)[0]
    torch.testing.assert_close(done, expected, atol=1e-5, rtol=0)


def test_half_the_resolution_by_hand():
    # Of six voxels 1, 3 and 5 are kept (the centres of pairs, 1, 3, 5, round up); voxel i lies at
    # (i + 1/2) / 2 - 1/2 of the three: -1/4, 1/4, 3/4, 5/4, 7/4, 9/4, beyond the ends the ends go on.
    line = np.array([0, 10, 0, 20, 0, 40.0])
    np.testing.assert_allclose(coarse(6, 3) @ line, [10, 12.5, 17.5, 25, 35, 40])
