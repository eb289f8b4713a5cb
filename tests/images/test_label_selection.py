"""Chosen labels of small label maps; what each value becomes is known from paper and pencil."""

import numpy as np
import pytest

from medseg.errors import UsageError
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.label_selection import label_names, select_labels
from medseg.images.volume import Mask

LUNG = Label(name="lung", values=(1, 2, 3))
LESION = Label(name="lesion", values=(2, 3))
CALCIFIED = Label(name="calcified", values=(3,))
HEART = Label(name="heart", values=(7,))
NESTED = (LUNG, LESION, CALCIFIED, HEART)
LINE = Grid.from_spacing((8, 1, 1), (10.0, 10.0, 10.0))  # 1 ml a voxel


def line(labels=NESTED, values=(0, 1, 2, 3, 7, 3, 1, 0)):
    return Mask(np.array(values, np.uint8).reshape(8, 1, 1), LINE, labels)


@pytest.mark.parametrize(
    ("names", "voxels", "values"),
    [
        (("heart",), [0, 0, 0, 0, 7, 0, 0, 0], {"heart": (7,)}),
        (("lung",), [0, 1, 1, 1, 0, 1, 1, 0], {"lung": (1,)}),
        (("lesion",), [0, 0, 2, 2, 0, 2, 0, 0], {"lesion": (2,)}),
        (("calcified", "lung"), [0, 1, 1, 3, 0, 3, 1, 0], {"lung": (1, 3), "calcified": (3,)}),
        (
            ("heart", "calcified", "lesion", "lung"),
            [0, 1, 2, 3, 7, 3, 1, 0],
            {label.name: label.values for label in NESTED},
        ),
    ],
)
def test_chosen_labels_keep_their_voxels_and_their_value(names, voxels, values):
    whole, chosen = line(), line().only(*names)
    assert chosen.array.ravel().tolist() == voxels
    assert {label.name: label.values for label in chosen.labels} == values
    for name in names:
        np.testing.assert_array_equal(chosen.of(name), whole.of(name))
        assert chosen.volumes_ml()[name] == whole.volumes_ml()[name]


def test_a_value_stays_where_two_chosen_labels_meet_in_a_third():
    left, right = Label(name="left", values=(1, 3)), Label(name="right", values=(2, 3))
    both = line((left, right, Label(name="both", values=(3,))), (0, 1, 2, 3, 3, 2, 1, 0))
    chosen = both.only("right", "left")
    assert chosen.array.ravel().tolist() == [0, 1, 2, 3, 3, 2, 1, 0]
    assert chosen.labels == (left, right)
    assert both.only("left").array.ravel().tolist() == [0, 1, 0, 1, 1, 0, 1, 0]


def test_values_of_16_bits():
    values = np.array([0, 7, 65535, 0, 0, 0, 0, 0], np.uint16).reshape(8, 1, 1)
    mask = Mask(values, LINE, (HEART, Label(name="wide", values=(65535,))))
    assert mask.only("wide").array.ravel().tolist() == [0, 0, 65535, 0, 0, 0, 0, 0]
    assert mask.only("heart").array.dtype == np.uint8
    assert mask.oriented("LPS").only("heart").grid.axcodes == "LPS"


def test_unknown_names_are_refused_with_similar_ones_and_all():
    with pytest.raises(UsageError, match="no label 'Hart', 'spleen'") as refused:
        select_labels(NESTED, "lung,Hart,spleen", "--roi")
    assert refused.value.reason == "no-such-label"
    assert refused.value.where == "--roi"
    assert refused.value.remedy == ("did you mean heart? The labels are: lung, lesion, calcified, heart")
    with pytest.raises(UsageError, match="no label was named"):
        line().only()


def test_names_are_separated_at_commas_of_text_only():
    assert label_names(" spleen,liver,,liver") == ("liver", "spleen")
    assert label_names(["liver, left", "spleen"]) == ("liver, left", "spleen")
    assert label_names("") == ("",)
    assert label_names(()) == ()
