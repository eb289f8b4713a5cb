"""Letters of the patient's sides and a scale, drawn into small pictures."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from medseg.visualization.planes import Plane

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont

_INK, _RIM = "#ffffff", "#101418"
SCALE_MM = 50


def annotate(picture: Image, plane: Plane, per_mm: float, *, size: int = 12, ends: bool = True) -> None:
    """Draws the letters of the sides and a scale of 50 mm into a picture.

    Args:
        picture: An RGB picture of the plane; it is changed.
        plane: The plane, which knows its letters.
        per_mm: Pixels in a millimetre.
        size: Height of the letters in pixels.
        ends: Whether the letters of top and bottom are drawn as well.
    """
    from PIL.ImageDraw import Draw

    draw, font, (width, height) = Draw(picture), _font(size), picture.size
    places: list[tuple[float, float, str, str]] = [
        (3, height / 2, plane.sides[0], "lm"),
        (width - 3, height / 2, plane.sides[1], "rm"),
    ]
    if ends:
        places += [(width / 2, 2, plane.ends[0], "mt"), (width / 2, height - 3, plane.ends[1], "mb")]
    for x, y, letter, anchor in places:
        draw.text((x, y), letter, _INK, font, anchor=anchor, stroke_width=1, stroke_fill=_RIM)
    long = SCALE_MM * per_mm
    if long < width / 2:
        x, y = width - 4, height - 5
        draw.line((x - long - 1, y, x + 1, y), _RIM, 4)
        draw.line((x - long, y, x, y), _INK, 2)
        if size >= 12:
            text = f"{SCALE_MM} mm"
            draw.text((x, y - 4), text, _INK, font, anchor="rs", stroke_width=1, stroke_fill=_RIM)


@cache
def _font(size: int) -> FreeTypeFont | ImageFont:
    from PIL.ImageFont import load_default

    return load_default(size)
