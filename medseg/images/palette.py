"""The colours of labels: the same in pictures, reports, the viewer and DICOM structure sets."""

from __future__ import annotations

from typing import TypeAlias

Rgb: TypeAlias = tuple[int, int, int]

SKY_BLUE, ORANGE, GREEN, YELLOW = "#56B4E9", "#E69F00", "#009E73", "#F0E442"
PURPLE, VERMILLION, BLUE = "#CC79A7", "#D55E00", "#0072B2"

COLOURS = (SKY_BLUE, ORANGE, GREEN, YELLOW, PURPLE, VERMILLION, BLUE)
"""Okabe and Ito's palette (2008, jfly.uni-koeln.de/color), safe for colour-blind readers; without black."""


def colour_of(number: int) -> str:
    """The colour, such as ``#56B4E9``, of the label at this index."""
    return COLOURS[number % len(COLOURS)]


def rgb(colour: str) -> Rgb:
    """Red, green and blue (0 to 255) of a colour such as ``#56B4E9``."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue
