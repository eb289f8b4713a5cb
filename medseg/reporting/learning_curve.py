"""``report.html`` of a learning curve: Dice against the number of training cases, chart and table."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from markupsafe import Markup

from medseg.images.palette import colour_of
from medseg.reporting.page import NAME, render_page, save
from medseg.reporting.plot_frame import PlotFrame, legend
from medseg.system.error_conversion import damaged_table

TABLE = "learning_curve.csv"
"""A file that only a learning curve writes: see :mod:`medseg.cross_validation.learning_curve`."""

_SHOWN = 6
"""Labels with a line of their own; with more, only the mean of all labels is drawn."""

Point = tuple[int, float, float, float]
"""Number of training cases, mean Dice, and the ends of its interval."""


def summary(folder: str | Path) -> Path:
    """Writes ``report.html`` into the folder of a learning curve and returns its path.

    Args:
        folder: The output folder of :func:`medseg.cross_validation.learning_curve.learning_curve`.

    Raises:
        UsageError: its table is damaged (``table``).
        ResourceError: the disk fails (``disk``).
    """
    folder = Path(folder)
    try:
        with (folder / TABLE).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, restval="damaged"))
        curves = _curves(rows)
        shown = [_cells(row) for row in rows]
    except (KeyError, ValueError, TypeError, OSError) as error:
        remedy = "write it again with the same medseg learn-curve command"
        raise damaged_table(error, folder / TABLE, remedy=remedy) from error
    text = render_page(
        "learning_curve.html",
        folder.resolve().name,
        chart=chart(curves),
        rows=shown,
        sizes=sorted({point[0] for points in curves.values() for point in points}),
    )
    return save(folder / NAME, text)


def chart(curves: dict[str, list[Point]]) -> Markup:
    """Mean Dice with its interval against the number of cases, which doubles in equal steps.

    Args:
        curves: The points of each label. With more than six labels only the first, the mean of all, is drawn.

    Returns:
        The chart; empty without a number.
    """
    names = list(curves) if len(curves) <= _SHOWN else list(curves)[:1]
    points = {
        name: sorted(point for point in curves[name] if math.isfinite(point[1]))
        for name in names
        if any(math.isfinite(point[1]) for point in curves[name])
    }
    if not points:
        return Markup()
    every = [point for each in points.values() for point in each]
    sizes = sorted({point[0] for point in every})
    left, right = math.log2(sizes[0]), math.log2(sizes[-1])
    lowest = min(value for point in every for value in point[1:3] if math.isfinite(value))
    low = max(0.0, math.floor(lowest * 20) / 20)
    across = (left - 0.3, right + 0.3)  # points at the ends stay clear of the axes
    frame = PlotFrame("Dice by number of training cases", across, (low if low < 1 else 0.0, 1.0))
    parts = [frame.axes("training cases", "Dice", [(math.log2(size), f"{size}") for size in sizes])]
    colours = [(name, colour_of(number)) for number, name in enumerate(points)]
    for number, (name, colour) in enumerate(colours):
        aside = 3.0 * (number - (len(colours) - 1) / 2)  # intervals of one size beside each other
        places = [
            (frame.x(math.log2(size)) + aside, frame.y(mean), size, mean, ends)
            for size, mean, *ends in points[name]
        ]
        line = Markup('<path d="M{}" fill="none" stroke="{}" stroke-width="1.8"/>')
        parts.append(line.format("L".join(f"{x:.1f} {y:.1f}" for x, y, *_ in places), colour))
        for x, y, size, mean, ends in places:
            interval = ""
            if all(map(math.isfinite, ends)):
                bar = Markup('<path d="M{:.1f} {:.1f}V{:.1f}" stroke="{}"/>')
                parts.append(bar.format(x, *(frame.y(min(max(end, low), 1.0)) for end in ends), colour))
                interval = f" (95 % CI {ends[0]:.3f} to {ends[1]:.3f})"
            dot = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3" fill="{}"><title>{}</title></circle>')
            parts.append(dot.format(x, y, colour, f"{name}, {size} cases: {mean:.3f}{interval}"))
    parts.append(legend(colours))
    said = ", ".join(f"{name} {each[0][1]:.3f} to {each[-1][1]:.3f}" for name, each in points.items())
    return frame.figure(f"Dice from {sizes[0]} to {sizes[-1]} training cases: {said}", parts)


def _curves(rows: list[dict[str, str]]) -> dict[str, list[Point]]:
    """The points of each label, the mean of all labels first."""
    found: dict[str, list[Point]] = {}
    for row in sorted(rows, key=lambda row: row["label"] != "all labels"):
        numbers = (float(row[name] or "nan") for name in ("dice_mean", "dice_ci_low", "dice_ci_high"))
        size = int(row["cases"])
        if size < 1:
            raise ValueError(f"{size} training cases")
        found.setdefault(row["label"], []).append((size, *numbers))  # type: ignore[arg-type]  # three numbers
    return found


def _cells(row: dict[str, str]) -> list[str]:
    """A row of the table as text."""
    mean, low, high = (float(row[name] or "nan") for name in ("dice_mean", "dice_ci_low", "dice_ci_high"))
    gain = float(row["gain"] or "nan")
    interval = f"{low:.4f} to {high:.4f}" if math.isfinite(low) and math.isfinite(high) else "–"
    return [
        row["cases"],
        row["label"],
        row["n"],
        f"{mean:.4f}" if math.isfinite(mean) else "–",
        interval,
        f"{gain:+.4f}" if math.isfinite(gain) else "–",
    ]
