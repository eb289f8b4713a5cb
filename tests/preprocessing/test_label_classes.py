"""Labels as integers, by hand."""

from __future__ import annotations

import numpy as np

from medseg.preprocessing.label_classes import LabelClasses, class_dtype


def test_the_table_by_hand():
    given = np.int8([[1, 0, 1, -1, 0], [0, 0, 1, -1, -1]]).reshape(2, 5, 1, 1)
    made = LabelClasses.from_channels(given)
    # none, first, second, unknown, outside the scan; then the combinations in sorted order.
    assert made.table.tolist() == [[0, 0], [1, 0], [0, 1], [-1, -1], [0, 0], [0, -1], [1, 1]]
    assert made.classes.ravel().tolist() == [1, 0, 6, 3, 5]
    assert np.array_equal(made.channels(), given)
    assert made.boxes()[1] == (slice(2, 3), slice(0, 1), slice(0, 1))
    assert LabelClasses.from_channels(given * 0).boxes() == [None, None]


def test_many_classes_get_a_wider_type():
    assert [class_dtype(n) for n in (256, 257, 32768, 32769)] == [np.uint8, np.int16, np.int16, np.int32]
