from __future__ import annotations

import numpy as np
import pytest
import torch
from support.augmentation import some

from medseg.preprocessing.augmentation.mr_artefacts import BiasField, Field, Ghosting, Ghosts, Motion, Moved


def test_a_bias_field_by_hand():
    # The polynomial x alone on -1, 0, 1: factors exp(-s), 1, exp(s) with s = log 2; the lowest voxel is 1.
    coefficients = np.zeros((4, 4))
    coefficients[1, 0] = -0.2  # scaled to an extreme of 1; the sign turns it round
    values = torch.tensor([[[1.0, 3.0], [3.0, 3.0], [5.0, 3.0]]])
    done = BiasField(1, 1).change(values, Field(coefficients, float(np.log(2))))
    # 1 + (3 - 1) * 2 = 5, 1 + 2 = 3, 1 + (3 - 1) / 2 = 2; 1 + (5 - 1) / 2 = 3.
    torch.testing.assert_close(done, torch.tensor([[[1.0, 5.0], [3.0, 3.0], [3.0, 2.0]]]))


@pytest.mark.parametrize("dims", [2, 3])
def test_a_bias_field_is_positive_smooth_and_bounded(dims):
    bias = BiasField(0.5, 1)
    bias.set_random_state(seed=0)
    values = torch.ones(1, *[32] * dims)
    values[(0, *[0] * dims)] = 0  # no signal there, so that the field is what is seen elsewhere
    extremes = []
    for _ in range(30):
        field = bias.change(values, bias.draw(dims))[0]
        field[(0,) * dims] = field[(0,) * (dims - 1) + (1,)]
        assert 1 / 1.5 - 1e-5 <= float(field.min()) <= float(field.max()) <= 1.5 + 1e-5
        extremes.append(float(field.log().abs().max()))
        for axis in range(dims):
            # A cubic on -1..1 with an extreme of 1 has a slope of at most 9 (Markov 1889: n^2),
            # so in steps of 2/31 its exponent changes by at most 0.58 times the strength.
            assert float(torch.diff(field.log(), dim=axis).abs().max()) <= 0.58 * np.log(1.5)
    assert max(extremes) > 0.7 * np.log(1.5)


def test_ghosts_by_hand():
    """Without every 4th line of k-space, but with the mean: the patch, less the mean of itself shifted by
    0, 1/4, 1/2 and 3/4 of its length, plus its mean (the comb is its own Fourier transform)."""
    values = some(1, 16, 3)
    done = Ghosting(1, 1).change(values, Ghosts(0, 4, 1.0)).numpy()
    rolled = np.mean([np.roll(values.numpy(), 4 * m, axis=1) for m in range(4)], axis=0)
    np.testing.assert_allclose(
        done, values.numpy() - rolled + values.numpy().mean(1, keepdims=True), atol=1e-5
    )


@pytest.mark.parametrize("shape", [(16, 12), (9, 16, 4)])
def test_ghosts_change_at_most_their_share_and_keep_the_mean(shape):
    ghosting = Ghosting(0.6, 1)
    ghosting.set_random_state(seed=0)
    values = some(2, *shape)
    axes = set()
    for _ in range(100):
        drawn = ghosting.draw(len(shape))
        axes.add(drawn.axis)
        done = ghosting.change(values, drawn)
        assert 4 <= drawn.number <= 10
        assert 0 <= drawn.share <= 0.6
        assert float((done - values).norm()) <= drawn.share * float(values.norm()) + 1e-4
        torch.testing.assert_close(done.mean(drawn.axis + 1), values.mean(drawn.axis + 1), atol=1e-5, rtol=0)
    assert axes == set(range(len(shape)))


def test_motion_before_the_first_line_is_a_shift():
    # All lines but the mean's have the phase of the second position: a whole number of voxels is a roll.
    values = some(2, 5, 9)
    done = Motion(5, 1, (1.0, 1.0)).change(values, Moved(1, 0.0, 2.0))
    np.testing.assert_allclose(done, np.roll(values.numpy(), 2, axis=2), atol=1e-5)


def test_motion_leaves_the_inner_lines_of_k_space_and_all_magnitudes():
    motion = Motion(10, 1, (2.0, 4.0), channels=1)
    motion.set_random_state(seed=0)
    values = some(1, 33, 15)
    shifts: list[list[float]] = [[], []]
    for _ in range(200):
        axis, before, shift = motion.draw(2)
        shifts[axis].append(shift)
        assert 0.2 <= before <= 0.8
        done = motion.change(values, Moved(axis, before, shift))
        ours, theirs = (np.fft.rfft(v.numpy(), axis=axis + 1) for v in (done, values))
        inner = int(before * (values.shape[axis + 1] // 2)) + 1
        part = tuple(slice(inner) if a == axis + 1 else slice(None) for a in range(3))
        np.testing.assert_allclose(ours[part], theirs[part], atol=1e-4)
        np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=1e-4)
    # At most 10 mm: 5 voxels of 2 mm, 2.5 of 4 mm.
    assert 4.5 < max(map(abs, shifts[0])) <= 5
    assert 2.25 < max(map(abs, shifts[1])) <= 2.5
