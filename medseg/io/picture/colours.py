"""Masks drawn in colours: from a table of colours to label values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from medseg.errors import InputRefused, UsageError
from medseg.images.label import Label
from medseg.images.volume import Voxels

BACKGROUND, IGNORE = "background", "ignore"
"""Names in a table of colours that are no labels; background is black unless the table says otherwise."""

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_EXAMPLES = 5


def colour_number(text: str) -> int:
    """``#ff8000`` as the number 0xff8000.

    Raises:
        UsageError: not ``#`` and six hexadecimal digits (``colours``).
    """
    if not isinstance(text, str) or not _COLOUR.fullmatch(text):
        raise UsageError(
            f"{text!r} is not a colour", where="colours", remedy="write it as '#ff8000'", reason="colours"
        )
    return int(text[1:], 16)


def colour_table(
    colours: Mapping[str, str], labels: Sequence[Label], ignore_value: int | None = None
) -> dict[int, int]:
    """The label value of each colour.

    Args:
        colours: The colour of each label by its name, and of ``background`` and ``ignore``.
        labels: The labels.
        ignore_value: The value of unknown voxels, for the colour ``ignore``.

    Raises:
        UsageError: a name is no label, two names share a colour, or ``ignore`` has no value (``colours``).
    """
    values = {BACKGROUND: 0, **({IGNORE: ignore_value} if ignore_value is not None else {})}
    values |= {label.name: label.value for label in labels}
    unknown = [name for name in colours if name not in values]
    if unknown:
        what = "needs ignore_value" if unknown[0] == IGNORE else f"{unknown[0]!r} is not a label"
        raise UsageError(
            f"the table of colours: {what}",
            where="colours",
            remedy=f"known names: {', '.join(values)}",
            reason="colours",
        )
    table: dict[int, int] = {}
    for name, text in colours.items():
        number = colour_number(text)
        if number in table:
            raise UsageError(
                f"two names have the colour {text}",
                where="colours",
                remedy="give each its own colour",
                reason="colours",
            )
        table[number] = values[name]
    if BACKGROUND not in colours:
        table.setdefault(0, 0)
    return table


def packed(colours: Voxels) -> npt.NDArray[np.uint32]:
    """One number 0xrrggbb for each pixel of uint8 (rows, columns, 3)."""
    wide = colours.astype(np.uint32)
    return np.asarray(wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2])


def mapped(colours: Voxels, table: Mapping[int, int]) -> npt.NDArray[np.uint16]:
    """The label values of a picture in colours.

    Args:
        colours: uint8 (rows, columns, 3).
        table: The label value of each colour: see :func:`colour_table`.

    Raises:
        InputRefused: a colour is not in the table (``unknown-colour``).
    """
    seen, first, which, counts = np.unique(
        packed(colours), return_index=True, return_inverse=True, return_counts=True
    )
    unknown = [n for n, number in enumerate(seen) if int(number) not in table]
    if unknown:
        unknown.sort(key=lambda n: -int(counts[n]))
        width = colours.shape[1]
        parts = [
            f"#{int(seen[n]):06x} in {int(counts[n])} pixel(s), first at column {int(first[n]) % width}, "
            f"row {int(first[n]) // width}"
            for n in unknown[:_EXAMPLES]
        ]
        more = f"; and {len(unknown) - _EXAMPLES} more" if len(unknown) > _EXAMPLES else ""
        known = ", ".join(f"#{number:06x}" for number in table)
        raise InputRefused(
            f"{len(unknown)} colour(s) of the mask are not in the table of colours ({known}): "
            f"{'; '.join(parts)}{more}",
            remedy="add them to colours, or draw the mask without smoothing",
            reason="unknown-colour",
        )
    values = np.array([table[int(number)] for number in seen], np.uint16)
    return np.asarray(values[which.reshape(colours.shape[:2])])
