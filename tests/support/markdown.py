"""Pages of the documentation, as data."""

from __future__ import annotations


def table_rows(text: str) -> list[list[str]]:
    """The cells of every row of the tables in a page, without heads and rules."""
    lines = [line.strip().strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line] for line in lines]
    rules = {number for number, line in enumerate(cells) if set("".join(line)) <= set("-: ")}
    return [line for number, line in enumerate(cells) if not {number, number + 1} & rules]
