from __future__ import annotations

import numpy as np
import pytest

from medseg.inference.uncertainty import Entropy


def test_entropy_is_zero_if_certain_one_bit_for_a_coin_and_ignores_the_background():
    entropy = Entropy(["sure", "coin", "mixed", "absent"])
    first = np.float32([[1.0, 0.0], [0.5, 0.2], [0.75, 0.1], [0.4, 0.0]]).reshape(4, 2, 1, 1)
    second = np.float32([[1.0, 1.0], [0.5, 0.5], [1.0, 0.3], [0.49, 0.0]]).reshape(4, 2, 1, 1)
    passed = list(entropy.watch([(0, first), (1, second)]))
    assert [number for number, _ in passed] == [0, 1]
    assert np.array_equal(passed[1][1], second)
    # -3/4 log2(3/4) - 1/4 log2(1/4) = 0.811278 bits, and 0 of the other voxel.
    assert entropy.bits() == {"sure": 0, "coin": 1, "mixed": pytest.approx(0.811278 / 2, abs=1e-6)}
