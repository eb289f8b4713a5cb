"""Colours of TotalSegmentator's structures."""

from __future__ import annotations

import pytest

from medseg.images import structure_colours
from medseg.images.structure_colours import structure_colour


@pytest.mark.parametrize(
    ("name", "rgb"),
    [
        # From the column DicomRGBColor of TotalSegmentator's table.
        ("spleen", (50, 170, 60)),
        ("kidney_left", (46, 138, 184)),
        ("vertebrae_T12", (69, 44, 9)),
        ("rib_right_10", (216, 159, 54)),
        ("costal_cartilages", (250, 220, 190)),
    ],
)
def test_colours_are_those_of_the_table(name, rgb):
    assert structure_colour(name) == "#{:02X}{:02X}{:02X}".format(*rgb)


def test_word_order_case_and_the_lungs_name_before_a_lobe_do_not_matter():
    assert structure_colour("Left Kidney") == structure_colour("kidney_left")
    assert structure_colour("right_middle_lobe") == structure_colour("lung_middle_lobe_right")
    assert structure_colour("lung") is structure_colour("kidney left lower") is structure_colour("") is None


def test_names_stay_different_when_their_words_are_sorted():
    assert len(structure_colours._COLOURS) == structure_colours._TABLE.count(",") + 1


def test_ribs_and_vertebrae_are_told_apart():
    names = [f"rib_{side}_{n}" for side in ("left", "right") for n in range(1, 13)]
    names += [
        f"vertebrae_{part}{n}" for part, last in (("C", 7), ("T", 12), ("L", 5)) for n in range(1, last + 1)
    ]
    assert len({structure_colour(name) for name in names}) == 48
