"""Charts as SVG text: nothing is drawn that would need a library in the browser."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from medseg.reporting.content import FAR, Pair, spread
from medseg.visualization.palette import COLOURS

_WIDTH, _HEIGHT = 300, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 24, 30


def histogram(name: str, values: Sequence[float]) -> str:
    """How a number is distributed; values beyond the outlier limits are marked below the axis."""
    finite = [value for value in values if math.isfinite(value)]
    if len(set(finite)) < 2:
        return ""
    counts, edges = np.histogram(finite, bins=min(24, max(6, round(math.sqrt(len(finite)) * 1.5))))
    low, high = float(edges[0]), float(edges[-1])
    most = int(counts.max())

    def x(value: float) -> float:
        return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    parts = [_axes(name, low, high, 0, most)]
    tall = _HEIGHT - _TOP - _BOTTOM
    for count, start, stop in zip(counts, edges[:-1], edges[1:], strict=True):
        height = tall * count / most
        wide = max(1, x(stop) - x(start) - 1)
        place = f'x="{x(start):.1f}" y="{_HEIGHT - _BOTTOM - height:.1f}" width="{wide:.1f}"'
        parts.append(f'<rect class="bar" {place} height="{height:.1f}"/>')
    scale = spread(finite)
    if scale:
        middle, width = scale
        for value in finite:
            if abs(value - middle) > FAR * width:
                parts.append(f'<circle class="far" cx="{x(value):.1f}" cy="{_HEIGHT - _BOTTOM + 5}" r="3"/>')
    told = f"{name}: {len(finite)} values from {_number(min(finite))} to {_number(max(finite))}, "
    return _svg(f"{told}median {_number(float(np.median(finite)))}", parts)


def bland_altman(pairs: Sequence[Pair]) -> str:
    """Volume less truth over their mean, with bias and limits of agreement (Bland and Altman 1986)."""
    means = [(pair.volume_ml + pair.truth_ml) / 2 for pair in pairs]
    differences = [pair.volume_ml - pair.truth_ml for pair in pairs]
    if len(pairs) < 2 or max(means) == min(means):
        return ""
    bias, sd = float(np.mean(differences)), float(np.std(differences, ddof=1))
    lines = {"bias": bias, "+1.96 SD": bias + 1.96 * sd, "-1.96 SD": bias - 1.96 * sd}
    low, high = min(*differences, *lines.values(), 0), max(*differences, *lines.values(), 0)
    high = high if high > low else low + 1
    left, right = min(means), max(means)
    label = pairs[0].label

    def x(value: float) -> float:
        return _LEFT + (value - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [_axes(f"{label}: volume - truth, ml, over their mean", left, right, low, high)]
    for name, value in lines.items():
        dash = "" if name == "bias" else ' stroke-dasharray="4 3"'
        place = f'x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"'
        parts.append(f'<line class="limit" {place}{dash}><title>{name} {value:.1f} ml</title></line>')
    for pair, mean, difference in zip(pairs, means, differences, strict=True):
        title = f"<title>{escape(pair.case)}: {difference:+.1f} ml</title>"
        parts.append(
            f'<circle class="dot" cx="{x(mean):.1f}" cy="{y(difference):.1f}" r="3">{title}</circle>'
        )
    limits = f"{bias - 1.96 * sd:.1f} to {bias + 1.96 * sd:.1f} ml"
    return _svg(f"{label}: bias {bias:+.1f} ml, limits of agreement {limits}", parts)


def violins(pairs: Sequence[Pair]) -> str:
    """Dice of every label: each case a dot, and their density by a Gaussian kernel (Scott's width)."""
    labels = list(dict.fromkeys(pair.label for pair in pairs))
    values = {
        label: [pair.dice for pair in pairs if pair.label == label and math.isfinite(pair.dice)]
        for label in labels
    }
    labels = [label for label in labels if values[label]]
    if not labels:
        return ""
    low = max(0.0, min(min(values[label]) for label in labels) - 0.02)
    parts = [_axes("Dice", None, None, low, 1.0)]
    wide = (_WIDTH - _LEFT - _RIGHT) / len(labels)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - low) / (1 - low) * (_HEIGHT - _TOP - _BOTTOM)

    for number, label in enumerate(labels):
        found, middle = np.array(values[label]), _LEFT + (number + 0.5) * wide
        colour = COLOURS[number % len(COLOURS)]
        width = max(float(found.std()) * len(found) ** -0.2, (1 - low) / 60)
        at = np.linspace(low, 1, 60)
        density = np.exp(-0.5 * ((at[:, None] - found) / width) ** 2).sum(1)
        half = 0.4 * wide * density / density.max()
        outline = [f"{middle + h:.1f},{y(v):.1f}" for v, h in zip(at, half, strict=True)]
        outline += [f"{middle - h:.1f},{y(v):.1f}" for v, h in zip(at[::-1], half[::-1], strict=True)]
        parts.append(f'<polygon points="{" ".join(outline)}" fill="{colour}" fill-opacity="0.3"/>')
        for order, value in enumerate(found):
            aside = ((order * 7) % 11 - 5) / 5 * 0.12 * wide
            parts.append(f'<circle cx="{middle + aside:.1f}" cy="{y(value):.1f}" r="2.5" fill="{colour}"/>')
        name = escape(label)
        parts.append(f'<text x="{middle:.1f}" y="{_HEIGHT - 10}" text-anchor="middle">{name}</text>')
    told = ", ".join(f"{label} median {float(np.median(values[label])):.3f}" for label in labels)
    return _svg(f"Dice: {told}", parts)


def _axes(name: str, left: float | None, right: float | None, low: float, high: float) -> str:
    floor, end = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = [
        f'<text class="name" x="{_LEFT}" y="14">{escape(name)}</text>',
        f'<path class="axis" d="M{_LEFT} {_TOP}V{floor}H{end}"/>',
        f'<text x="{_LEFT - 4}" y="{floor}" text-anchor="end">{_number(low)}</text>',
        f'<text x="{_LEFT - 4}" y="{_TOP + 8}" text-anchor="end">{_number(high)}</text>',
    ]
    if left is not None and right is not None:
        parts.append(f'<text x="{_LEFT}" y="{_HEIGHT - 8}">{_number(left)}</text>')
        parts.append(f'<text x="{end}" y="{_HEIGHT - 8}" text-anchor="end">{_number(right)}</text>')
    return "".join(parts)


def _svg(told: str, parts: Sequence[str]) -> str:
    head = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(told)}">'
    return f"<figure>{head}<title>{escape(told)}</title>{''.join(parts)}</svg></figure>"


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
