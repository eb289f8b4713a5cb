"""How a volume is written, wherever people read it: in terminals, pictures, the viewer and reports."""

from __future__ import annotations


def volume_text(volume_ml: float) -> str:
    """The volume with its unit, such as ``3247.3 ml``; below 1 ml with three digits behind the point."""
    return f"{volume_ml:.{1 if volume_ml >= 1 or volume_ml == 0 else 3}f} ml"
