"""Text in CSV files that spreadsheets open: no cell may become a formula.

Excel and LibreOffice evaluate cells that begin with ``=``, ``+``, ``-`` or ``@``, such as a name from an
untrusted file. Such cells are written with an apostrophe in front (OWASP, "CSV Injection"), and
readers of this package remove it.
"""

from __future__ import annotations

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def to_cell(value: object) -> object:
    """The value as a cell: text that could be a formula gets an apostrophe; numbers stay as they are.

    >>> to_cell("=1+1"), to_cell("lung"), to_cell(-1.5), to_cell("-1.5")
    ("'=1+1", 'lung', -1.5, '-1.5')
    """
    if isinstance(value, str) and value.lstrip("'").startswith(_FORMULA) and not _is_number(value):
        return f"'{value}"
    return value


def from_cell(text: str) -> str:
    """The text of a cell that :func:`to_cell` has written."""
    if text.startswith("'") and text.lstrip("'").startswith(_FORMULA):
        return text[1:]
    return text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
