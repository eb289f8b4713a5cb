"""The colours of labels: the same in pictures, reports, the viewer and DICOM structure sets."""

from __future__ import annotations

import colorsys
from typing import TypeAlias

from medseg.images.label import Label
from medseg.images.structure_colours import structure_colour

Rgb: TypeAlias = tuple[int, int, int]

SKY_BLUE, ORANGE, GREEN, YELLOW = "#56B4E9", "#E69F00", "#009E73", "#F0E442"
PURPLE, VERMILLION, BLUE = "#CC79A7", "#D55E00", "#0072B2"

COLOURS = (SKY_BLUE, ORANGE, GREEN, YELLOW, PURPLE, VERMILLION, BLUE)
"""Okabe and Ito's palette (2008, jfly.uni-koeln.de/color), safe for colour-blind readers; without black."""


def colour_of(number: int) -> str:
    """The colour, such as ``#56B4E9``, of the label at this index."""
    return COLOURS[number % len(COLOURS)]


def label_colour(label: Label) -> str:
    """The colour, such as ``#56B4E9``, of a label, wherever it is shown or written.

    A structure that TotalSegmentator names has its colour there. Any other label has one by its value: Okabe
    and Ito's for values up to 7, then hues a golden angle apart, in three shades, so that none is repeated
    soon. A label keeps its colour when others are left out.
    """
    known = structure_colour(label.name)
    if known is not None:
        return known
    number = label.value - 1
    if number < len(COLOURS):
        return COLOURS[number]
    hue = (number * _GOLDEN_ANGLE) % 1.0
    saturation, brightness = _SHADES[number % len(_SHADES)]
    red, green, blue = (round(255 * each) for each in colorsys.hsv_to_rgb(hue, saturation, brightness))
    return f"#{red:02X}{green:02X}{blue:02X}"


_GOLDEN_ANGLE = (5**0.5 - 1) / 2  # of a turn: the hue that is farthest from all before it
_SHADES = ((0.55, 1.0), (0.95, 0.9), (0.8, 0.62))


def rgb(colour: str) -> Rgb:
    """Red, green and blue (0 to 255) of a colour such as ``#56B4E9``."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue
