"""Labels, channels and modality of a plan."""

from __future__ import annotations

import pytest

from medseg.datasets.manifest import Case
from medseg.errors import UsageError
from medseg.images.label import Label
from medseg.planning.dataset_description import Description
from medseg.planning.fingerprint import CaseSize, Fingerprint, Intensities, LabelSize
from medseg.planning.structures import channel_names, named_modality, structures


def found(*values, cases=20, rare=()):
    size = CaseSize(spacing_mm=(1, 1, 1), stored=(9, 9, 9), shape=(9, 9, 9))
    channel = Intensities(name="a", mean=0, sd=1, median=0, minimum=0, maximum=1, low=0, high=1)
    labels = tuple(
        LabelSize(
            value=value,
            cases=1 if value in rare else cases,
            median_ml=1,
            smallest_ml=1,
            parts=1,
            thin_mm=(9, 9, 9),
        )
        for value in values
    )
    return Fingerprint(name="s", modality="CT", cases=(size,) * cases, channels=(channel,), labels=labels)


def cases(*counts):
    return [Case(id=f"c{n}", images=("a.nii",) * count, label="b.nii") for n, count in enumerate(counts)]


def test_labels_have_names_and_sides():
    names = {1: "right_lung", 2: "LeftLung", 3: "heart"}
    known = structures(found(1, 2, 3), cases(1), Description(("CT",), names))
    assert [(each.name, each.side) for each in known.labels] == [
        ("right_lung", "right"), ("LeftLung", "left"), ("heart", None),
    ]  # fmt: skip
    assert known.exclusive
    assert not known.cautions


def test_a_name_without_voxels_is_left_out_and_said():
    known = structures(found(1), cases(1), Description(("CT",), {1: "liver", 2: "tumour"}))
    assert [each.name for each in known.labels] == ["liver"]
    assert not known.exclusive  # one label needs no softmax
    assert "tumour" in known.cautions[0]


def test_a_value_without_name_and_a_rare_one_are_said():
    known = structures(found(1, 5, rare=(5,)), cases(1), Description(("CT",), {1: "liver"}))
    assert [each.name for each in known.labels] == ["liver", "label_5"]
    assert "no name" in known.cautions[0]
    assert "1 of 20" in known.cautions[1]


def test_regions_overlap():
    regions = (Label(name="whole", values=(1, 2)), Label(name="core", values=(2,)))
    known = structures(found(1, 2, 4), cases(1), Description(("MR",), {}, regions))
    assert known.labels == regions
    assert not known.exclusive
    assert "4 belongs to no region" in known.cautions[0]


def test_partly_annotated_cases_need_a_sigmoid_for_each_label():
    partly = [each.model_copy(update={"annotated": ("a",)}) for each in cases(1)]
    assert not structures(found(1, 2), partly, Description(("CT",), {1: "a", 2: "b"})).exclusive


def test_channels_take_the_names_of_the_description():
    assert channel_names(cases(2), Description(("T1", "T2"), {1: "a"}), None) == ("T1", "T2")
    assert channel_names(cases(1), Description(("T1", "T2"), {1: "a"}), None) == ("T1", "T2")  # a 4D file
    assert channel_names(cases(1), Description(), "CT") == ("CT",)
    assert channel_names(cases(2, 2), Description(), "MR") == ("MR_1", "MR_2")


def test_different_numbers_of_channels_are_refused():
    with pytest.raises(UsageError, match="1 in c1, 2 in c0") as refused:
        channel_names(cases(2, 1), Description(), None)
    assert refused.value.reason == "channel-count"


@pytest.mark.parametrize(
    ("names", "modality"), [(("CT",), "CT"), (("chest CT",), "CT"), (("T1", "T2"), "MR"), ((), None)]
)
def test_the_modality_follows_from_the_names_of_channels(names, modality):
    assert named_modality(Description(names)) == modality
