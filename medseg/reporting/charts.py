"""Charts as SVG, with all text escaped; a browser shows them without any library."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from medseg.images.palette import colour_of
from medseg.reporting.content import FAR, Pair, spread

_WIDTH, _HEIGHT = 300, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 24, 30


def histogram(name: str, values: Sequence[float], unit: str = "") -> Markup:
    """Histogram of a number, with outliers marked below the axis; empty without two different values."""
    finite = [value for value in values if math.isfinite(value)]
    if len(set(finite)) < 2:
        return Markup()
    counts, edges = np.histogram(finite, bins=min(24, max(6, round(math.sqrt(len(finite)) * 1.5))))
    low, high = float(edges[0]), float(edges[-1])
    most = int(counts.max())

    def x(value: float) -> float:
        return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    parts = [_axes(name, low, high, 0, most, across=unit, up="cases")]
    tall = _HEIGHT - _TOP - _BOTTOM
    for count, start, stop in zip(counts, edges[:-1], edges[1:], strict=True):
        height = tall * count / most
        wide = max(1, x(stop) - x(start) - 1)
        bar = '<rect class="bar" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>'
        parts.append(Markup(bar).format(x(start), _HEIGHT - _BOTTOM - height, wide, height))
    scale = spread(finite)
    if scale:
        middle, width = scale
        for value in finite:
            if abs(value - middle) > FAR * width:
                dot = Markup('<circle class="far" cx="{:.1f}" cy="{}" r="3"/>')
                parts.append(dot.format(x(value), _HEIGHT - _BOTTOM + 5))
    summary = f"{name}: {len(finite)} values from {short_number(min(finite))} to {short_number(max(finite))}"
    middle_value = f"median {short_number(float(np.median(finite)))}"
    return _svg(f"{summary}, {middle_value} {unit}".rstrip(), parts)


def bland_altman(pairs: Sequence[Pair]) -> Markup:
    """Volume minus truth over their mean, with bias and limits of agreement (Bland and Altman 1986)."""
    means = [(pair.volume_ml + pair.truth_ml) / 2 for pair in pairs]
    differences = [pair.volume_ml - pair.truth_ml for pair in pairs]
    if len(pairs) < 2 or max(means) == min(means):
        return Markup()
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

    heading = f"{label}: volume - truth over their mean"
    parts = [_axes(heading, left, right, low, high, across="mean, ml", up="ml")]
    for name, value in lines.items():
        line = Markup(
            '<line class="limit" x1="{}" x2="{}" y1="{height:.1f}" y2="{height:.1f}"{dash}>'
            "<title>{name} {value:.1f} ml</title></line>"
        )
        dash = Markup("") if name == "bias" else Markup(' stroke-dasharray="4 3"')
        ends = (_LEFT, _WIDTH - _RIGHT)
        parts.append(line.format(*ends, height=y(value), dash=dash, name=name, value=value))
    for pair, mean, difference in zip(pairs, means, differences, strict=True):
        dot = Markup(
            '<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="3"><title>{}: {:+.1f} ml</title></circle>'
        )
        parts.append(dot.format(x(mean), y(difference), pair.case, difference))
    limits = f"{bias - 1.96 * sd:.1f} to {bias + 1.96 * sd:.1f} ml"
    return _svg(f"{label}: bias {bias:+.1f} ml, limits of agreement {limits}", parts)


def violins(pairs: Sequence[Pair]) -> Markup:
    """Dice of every label: a dot per case, and the density by a Gaussian kernel (Scott's width)."""
    labels = list(dict.fromkeys(pair.label for pair in pairs))
    values = {
        label: [pair.dice for pair in pairs if pair.label == label and math.isfinite(pair.dice)]
        for label in labels
    }
    labels = [label for label in labels if values[label]]
    if not labels:
        return Markup()
    low = max(0.0, min(min(values[label]) for label in labels) - 0.02)
    parts = [_axes("Dice", None, None, low, 1.0)]
    wide = (_WIDTH - _LEFT - _RIGHT) / len(labels)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (value - low) / (1 - low) * (_HEIGHT - _TOP - _BOTTOM)

    for number, label in enumerate(labels):
        found, middle = np.array(values[label]), _LEFT + (number + 0.5) * wide
        colour = colour_of(number)
        width = max(float(found.std()) * len(found) ** -0.2, (1 - low) / 60)
        at = np.linspace(low, 1, 60)
        density = np.exp(-0.5 * ((at[:, None] - found) / width) ** 2).sum(1)
        half = 0.4 * wide * density / density.max()
        outline = [f"{middle + h:.1f},{y(v):.1f}" for v, h in zip(at, half, strict=True)]
        outline += [f"{middle - h:.1f},{y(v):.1f}" for v, h in zip(at[::-1], half[::-1], strict=True)]
        shape = Markup('<polygon points="{}" fill="{}" fill-opacity="0.3"/>')
        parts.append(shape.format(" ".join(outline), colour))
        for order, value in enumerate(found):
            aside = ((order * 7) % 11 - 5) / 5 * 0.12 * wide
            dot = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="2.5" fill="{}"/>')
            parts.append(dot.format(middle + aside, y(value), colour))
        name = Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>')
        parts.append(name.format(middle, _HEIGHT - 10, label))
    medians = ", ".join(f"{label} median {float(np.median(values[label])):.3f}" for label in labels)
    return _svg(f"Dice: {medians}", parts)


def _axes(
    name: str,
    left: float | None,
    right: float | None,
    low: float,
    high: float,
    *,
    across: str = "",
    up: str = "",
) -> Markup:
    """Heading and axes with their limits, and units in the middle of each."""
    floor, end = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    middle = Markup('<text class="unit" x="{}" y="{}" text-anchor="{}">{}</text>')
    right_aligned = Markup('<text x="{}" y="{}" text-anchor="end">{}</text>')
    parts = [
        Markup('<text class="name" x="{}" y="14">{}</text>').format(_LEFT, name),
        Markup('<path class="axis" d="M{} {}V{}H{}"/>').format(_LEFT, _TOP, floor, end),
        right_aligned.format(_LEFT - 4, floor, short_number(low)),
        right_aligned.format(_LEFT - 4, _TOP + 8, short_number(high)),
        middle.format((_LEFT + end) / 2, _HEIGHT - 8, "middle", across),
        middle.format(_LEFT - 4, (_TOP + floor) / 2 + 4, "end", up),
    ]
    if left is not None and right is not None:
        parts.append(Markup('<text x="{}" y="{}">{}</text>').format(_LEFT, _HEIGHT - 8, short_number(left)))
        parts.append(right_aligned.format(end, _HEIGHT - 8, short_number(right)))
    return Markup("").join(parts)


def _svg(description: str, parts: Sequence[Markup]) -> Markup:
    return Markup(
        '<figure><svg viewBox="0 0 {width} {height}" role="img" aria-label="{description}">'
        "<title>{description}</title>{drawn}</svg></figure>"
    ).format(width=_WIDTH, height=_HEIGHT, description=description, drawn=Markup("").join(parts))


def short_number(value: float) -> str:
    """A number in three digits, without decimals from 100 on."""
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
