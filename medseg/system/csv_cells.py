"""Text in CSV files that spreadsheets open: no cell may become a formula.

Excel and LibreOffice evaluate cells that begin with ``=``, ``+``, ``-`` or ``@``, such as a name from an
untrusted file. Such cells are written with an apostrophe in front (OWASP, "CSV Injection"), and
readers of this package remove it.
"""

from __future__ import annotations

_SIX_DIGITS = 100.0  # from here on, four decimals are more than six digits
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def to_cell(value: object) -> object:
    """The value as a cell: text that could be a formula gets an apostrophe; numbers stay as they are.

    >>> to_cell("=1+1"), to_cell("lung"), to_cell(-1.5), to_cell("-1.5")
    ("'=1+1", 'lung', -1.5, '-1.5')
    """
    if isinstance(value, str) and value.lstrip("'").startswith(_FORMULA) and not _is_number(value):
        return f"'{value}"
    return value


def rounded(value: object) -> object:
    """The value; a float with four decimals, or six significant digits where these are more.

    >>> rounded(4163.123456789), rounded(0.000123456789), rounded(7), rounded("a")
    (4163.1235, 0.000123457, 7, 'a')
    """
    if not isinstance(value, float):
        return value
    return round(value, 4) if abs(value) >= _SIX_DIGITS else float(f"{value:.6g}")


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
