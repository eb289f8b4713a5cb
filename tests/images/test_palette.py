from medseg.images.palette import COLOURS, GREEN, VERMILLION, colour_of, rgb


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
