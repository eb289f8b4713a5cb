"""What a column of numbers is: a quantity of a label, with its unit."""

from __future__ import annotations

from dataclasses import dataclass

_KINDS = {
    "airless ml": ("airless volume", "ml"),
    "ml": ("volume", "ml"),
    "components": ("parts", ""),
    "mean": ("mean", "HU"),
    "sd": ("SD", "HU"),
    "entropy": ("entropy", "bit"),
    "dice": ("Dice", ""),
    "hd95 mm": ("HD95", "mm"),
    "airless left / right": ("airless left / right", ""),
    "left / right": ("left / right", ""),
    "mass g": ("mass", "g"),
    "mean hu": ("mean", "HU"),
    "perc15 hu": ("15th percentile", "HU"),
    "laa950 percent": ("below -950 HU", "%"),
    "laa910 percent": ("below -910 HU", "%"),
    "haa percent": ("-600 to -250 HU", "%"),
    "laa950 d": ("D of the sizes of LAA-950", ""),
}
"""Name and unit by the end of a column's name; longer endings come first where one ends in another."""


@dataclass(frozen=True)
class Quantity:
    """A quantity of a label.

    Attributes:
        label: Name of the label or structure; empty for a column of another kind.
        name: What is measured.
        unit: Its unit; empty for counts and ratios, and for intensities of scans other than CT.
    """

    label: str
    name: str
    unit: str

    @property
    def heading(self) -> str:
        """Name and unit."""
        return f"{self.name}, {self.unit}" if self.unit else self.name

    @property
    def title(self) -> str:
        """Label, name and unit."""
        return f"{self.label} {self.heading}".strip()


def quantity_of(column: str, *, hounsfield: bool = True) -> Quantity:
    """The quantity in a column such as ``left lung airless ml``.

    Args:
        column: Name of the column.
        hounsfield: Whether mean and SD are HU.
    """
    for ending, (name, unit) in _KINDS.items():
        if column == ending or column.endswith(f" {ending}"):
            known = "" if unit == "HU" and not hounsfield else unit
            return Quantity(column.removesuffix(ending).strip(), name, known)
    return Quantity("", column, "")
