"""The frame of a chart: axes with ticks and units, as SVG with all text escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from medseg.reporting.charts import short_number

WIDTH, HEIGHT = 340, 216
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 52, 40


@dataclass(frozen=True)
class PlotFrame:
    """A chart of 340 x 216 units, in which text stays readable from 340 pixels on.

    Attributes:
        name: Heading.
        across: Range of the horizontal axis.
        up: Range of the vertical axis.
    """

    name: str
    across: tuple[float, float]
    up: tuple[float, float]

    def x(self, value: float) -> float:
        """The place of a value on the horizontal axis."""
        low, high = self.across
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """The place of a value on the vertical axis."""
        low, high = self.up
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def axes(self, across: str, up: str, ticks: Sequence[tuple[float, str]]) -> Markup:
        """Heading, axes, three numbers on the vertical one, and texts at places of the horizontal one.

        Args:
            across: Name and unit of the horizontal axis; empty if the ticks say it.
            up: Name and unit of the vertical axis.
            ticks: Value and text.
        """
        floor, end, middle = HEIGHT - BOTTOM, WIDTH - RIGHT, (HEIGHT - BOTTOM + TOP) / 2
        parts = [
            Markup('<text class="name" x="4" y="14">{}</text>').format(self.name),
            Markup('<path class="axis" d="M{} {}V{}H{}"/>').format(LEFT, TOP, floor, end),
            text_at((LEFT + end) / 2, HEIGHT - 6, across, "middle"),
            Markup(
                '<text transform="rotate(-90 11 {y})" x="11" y="{y}" text-anchor="middle">{text}</text>'
            ).format(y=middle, text=up),
        ]
        low, high = self.up
        for value in (low, (low + high) / 2, high):
            parts.append(text_at(LEFT - 5, self.y(value) + 3.5, short_number(value), "end"))
        parts += [text_at(self.x(value), floor + 14, text, "middle") for value, text in ticks]
        return Markup("").join(parts)

    def figure(self, description: str, parts: Sequence[Markup]) -> Markup:
        """The finished chart.

        Args:
            description: What it shows, for those who cannot see it.
            parts: Its elements.
        """
        return Markup(
            '<figure><svg viewBox="0 0 {width} {height}" role="img" aria-label="{description}">'
            "<title>{description}</title>{drawn}</svg></figure>"
        ).format(width=WIDTH, height=HEIGHT, description=description, drawn=Markup("").join(parts))


def text_at(x: float, y: float, text: str, anchor: str = "start") -> Markup:
    """A text element; nothing for an empty text."""
    if not text:
        return Markup()
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, text)


def legend(names: Sequence[tuple[str, str]], dashes: Sequence[str] = ()) -> Markup:
    """Names with lines of their colours, in a row below the heading.

    Args:
        names: Name and colour.
        dashes: Dash patterns of the lines, in the same order.
    """
    parts, x = [], LEFT + 0.0
    for number, (name, colour) in enumerate(names):
        dash = dashes[number] if dashes else ""
        line = Markup('<path d="M{:.1f} 24H{:.1f}" stroke="{}" stroke-width="4" stroke-dasharray="{}"/>')
        parts += [line.format(x, x + 16, colour, dash), text_at(x + 20, 27.5, name)]
        x += 30 + 5.6 * len(name)
    return Markup("").join(parts)


def round_up(value: float) -> float:
    """The next of 1, 2, 5 times a power of ten, as the end of an axis; 1 for 0."""
    if value <= 0:
        return 1.0
    power = 10.0 ** len(str(int(value))) if value >= 1 else 1.0
    while power / 10 >= value:
        power /= 10
    return next(power * step / 10 for step in (1, 2, 5, 10) if power * step / 10 >= value)
