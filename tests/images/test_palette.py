from itertools import combinations

from medseg.images.label import Label
from medseg.images.palette import COLOURS, GREEN, VERMILLION, colour_of, label_colour, rgb


def test_colours_are_those_of_okabe_and_ito():
    # The table of jfly.uni-koeln.de/color, in RGB: sky blue and orange come first, black is left out.
    assert rgb(colour_of(0)) == (86, 180, 233)
    assert rgb(colour_of(1)) == (230, 159, 0)
    assert {rgb(each) for each in COLOURS} == {
        (86, 180, 233),
        (230, 159, 0),
        (0, 158, 115),
        (240, 228, 66),
        (204, 121, 167),
        (213, 94, 0),
        (0, 114, 178),
    }
    assert rgb(GREEN) == (0, 158, 115)
    assert rgb(VERMILLION) == (213, 94, 0)


def test_the_eighth_label_has_the_first_colour_again():
    assert [colour_of(n) for n in (7, 8, 14)] == [COLOURS[0], COLOURS[1], COLOURS[0]]


def label(name, value):
    return Label(name=name, values=(value,))


def test_labels_have_colours_by_value_and_keep_them_when_others_are_left_out():
    assert [label_colour(label(f"part {n}", n)) for n in (1, 2, 7)] == [COLOURS[0], COLOURS[1], COLOURS[6]]


def test_labels_of_a_model_with_many_classes_have_colours_of_their_own():
    colours = [rgb(label_colour(label(f"part {n}", n))) for n in range(1, 256)]
    assert len(set(colours)) == 255
    # Each of 20 neighbouring values differs from the others in some channel by a visible step.
    for first in range(0, 235):
        some = colours[first : first + 20]
        steps = [
            max(abs(a - b) for a, b in zip(one, other, strict=True)) for one, other in combinations(some, 2)
        ]
        assert min(steps) >= 10


def test_a_structure_that_totalsegmentator_names_has_its_colour_whatever_its_value():
    assert [label_colour(label("liver", value)) for value in (1, 5, 300)] == ["#288C28"] * 3
