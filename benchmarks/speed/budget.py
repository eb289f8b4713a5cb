"""Draws the budget of one scan: where the time of a process goes, as one bar for each toolkit.

    python benchmarks/speed/budget.py [--out docs/budget.svg]

The numbers are those of docs/performance.md: CPU seconds of each stage of medseg's lung models ("The budget
of one scan"), and wall time of one 3D network in several toolkits ("The same network in other toolkits").
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
STAGES = ("import", "read", "prepare", "network", "restore", "write")
COLOURS = ("#b8b8b8", "#8fb8de", "#4477aa", "#ddaa33", "#228833", "#aa3377")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=PAGE.with_name("budget.svg"))
    draw(parser.parse_args().out)


def draw(out: Path) -> None:
    """Writes the picture."""
    panels = [
        ("Lung models: CPU seconds", table("| lung model, CPU s |")),
        ("The same 3D network: seconds", table("| | wall s | times medseg's |")),
    ]
    mpl.rcParams |= {"svg.hashsalt": "medseg", "font.size": 9}
    heights = [len(rows) + 1 for _, rows in panels]
    figure, axes = plt.subplots(len(panels), figsize=(8, 4.6), height_ratios=heights, layout="constrained")
    for axis, (title, rows) in zip(axes, panels, strict=True):
        names = [name for name, _ in reversed(rows)]
        left = [0.0] * len(rows)
        for stage, colour in zip(STAGES, COLOURS, strict=True):
            wide = [seconds[stage] for _, seconds in reversed(rows)]
            axis.barh(names, wide, left=left, color=colour, label=stage)
            left = [a + b for a, b in zip(left, wide, strict=True)]
        for name, total in zip(names, left, strict=True):
            axis.text(total, name, f" {total:.1f}", va="center")
        axis.set_title(title, loc="left", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.08)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(STAGES))
    figure.savefig(out, metadata={"Date": None})
    plt.close(figure)


def table(head: str) -> list[tuple[str, dict[str, float]]]:
    """The rows of a table of the page: name, and seconds of each stage; thresholds are left out.

    medseg's import and reading overlap and are one number, which counts as import.
    """
    lines = PAGE.read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(head))
    columns = cells(lines[first])
    rows = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        name, *values = cells(line)
        found = dict(zip(columns[1:], values, strict=True))
        seconds = {stage: number(found.get(stage, "")) for stage in STAGES}
        if "thresholds" not in name:
            rows.append((name, seconds))
    return rows


def cells(line: str) -> list[str]:
    return [cell.strip().strip("`") for cell in line.strip().strip("|").split("|")]


def number(cell: str) -> float:
    """The number at the start of a cell; 0 if it is empty."""
    match = re.match(r"[\d.]+", cell)
    return float(match[0]) if match else 0.0


if __name__ == "__main__":
    main()
