from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.transforms.intensity.array import AdjustContrast
from support.augmentation import some

from medseg.preprocessing.augmentation.intensity import Brightness, Clip, Contrast, Cutout, Gamma, Noise


def test_gamma_by_hand_and_by_monai():
    # low 1, range 4: 1 + 4 * ((3 - 1) / 4)^2 = 2.
    values = torch.tensor([[1.0, 3.0, 5.0]])
    torch.testing.assert_close(Gamma(0.5, 1).change(values, 2.0), torch.tensor([[1.0, 2.0, 5.0]]))
    patch = some(1, 8, 9) * 3 - 1
    torch.testing.assert_close(
        Gamma(0.5, 1).change(patch, 0.7), AdjustContrast(0.7)(patch).as_tensor(), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("step", [Gamma, Contrast])
def test_factors_and_exponents_lie_about_1(step):
    each = step(0.3, 1)
    each.set_random_state(seed=0)
    drawn = [each.draw(3) for _ in range(500)]
    assert 0.7 <= min(drawn) < 0.71
    assert 1.29 < max(drawn) <= 1.3


def test_contrast_and_brightness_by_hand():
    values = torch.tensor([[-1.0, 0.0, 2.0]])
    assert Contrast(0.5, 1).change(values, 1.5).tolist() == [[-1.5, 0.0, 3.0]]
    assert Brightness(0.5, 1).change(values, 0.25).tolist() == [[-0.75, 0.25, 2.25]]
    each = Brightness(0.2, 1)
    each.set_random_state(seed=0)
    drawn = [each.draw(3) for _ in range(500)]
    assert -0.2 <= min(drawn) < -0.19
    assert 0.19 < max(drawn) <= 0.2


def test_noise_has_the_standard_deviation_that_was_drawn_and_differs_between_slices():
    noise = Noise(0.5, 1)
    noise.set_random_state(seed=0)
    drawn = [noise.draw(3) for _ in range(500)]
    assert 0 <= min(drawn)[0] < max(drawn)[0] <= 0.5
    assert len({seed for _, seed in drawn}) == 500
    done = noise.change(torch.full((2, 40, 50), 3.0), (0.25, 7))
    # 4,000 voxels: the standard error of the mean is 0.25 / 63 = 0.004, of the deviation 0.003.
    assert float(done.mean()) == pytest.approx(3, abs=0.016)
    assert float(done.std()) == pytest.approx(0.25, abs=0.012)
    correlation = np.corrcoef(done[0].flatten(), done[1].flatten())[0, 1]
    assert abs(correlation) < 0.1


def test_cutout_by_hand():
    cutout = Cutout(0.5, 1, channels=2)
    image = torch.arange(2.0 * 3 * 4).reshape(2, 3, 4)
    cutout.randomize = lambda data: None
    cutout.box = (slice(0, 1), slice(1, 3))
    done = cutout({"image": image, "label": torch.ones(1, 3, 4)})
    # The mean of 0..11 is 5.5, of 12..23 it is 17.5.
    assert done["image"][:, 0].tolist() == [[0, 5.5, 5.5, 3], [12, 17.5, 17.5, 15]]
    assert torch.equal(done["image"][:, 1:], image[:, 1:])
    assert torch.equal(done["label"], torch.ones(1, 3, 4))


def test_cutout_hides_at_most_the_share_of_each_edge():
    cutout = Cutout(0.4, 1)
    cutout.set_random_state(seed=0)
    given = {"image": some(1, 20, 30, 10), "label": torch.ones(1, 20, 30, 10)}
    lengths = []
    for _ in range(200):
        cutout.randomize(given)
        assert cutout.box is not None
        lengths.append([part.stop - part.start for part in cutout.box])
        assert all(p.start >= 0 and p.stop <= n for p, n in zip(cutout.box, (20, 30, 10), strict=True))
    assert np.min(lengths, 0).tolist() == [1, 1, 1]
    assert np.max(lengths, 0).tolist() == [7, 11, 3]  # rounded down from less than 8, 12 and 4


def test_clip_by_hand():
    done = Clip()({"image": torch.tensor([[-0.5, 0.5, 1.5]]), "label": torch.zeros(1, 3)})
    assert done["image"].tolist() == [[0.0, 0.5, 1.0]]
