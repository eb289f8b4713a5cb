import pytest
from pydantic import ValidationError

from medseg.images.label import Label


def test_the_first_value_is_the_one_written():
    assert Label(name="lung", values=(3, 1)).value == 3
    assert Label(name="lung", values=(3,), side="left").side == "left"


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "", "values": (1,)},
        {"name": "a", "values": ()},
        {"name": "a", "values": (0,)},
        {"name": "a", "values": (65536,)},
        {"name": "a", "values": (1,), "side": "middle"},
        {"name": "a", "values": (1,), "colour": "red"},
    ],
)
def test_invalid_labels_are_refused(wrong):
    with pytest.raises(ValidationError):
        Label(**wrong)


def test_is_immutable_and_hashable():
    label = Label(name="a", values=(1,))
    with pytest.raises(ValidationError):
        label.name = "b"
    assert hash(label) == hash(Label(name="a", values=(1,)))
