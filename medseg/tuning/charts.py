"""Charts of a study as SVG, with all text escaped: history, importance, and parallel coordinates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from medseg.tuning.parameter import Choice, Parameter, Range
from medseg.tuning.trial_record import TrialRecord

_WIDTH, _HEIGHT = 640, 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 20, 26, 34
_TEXT = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')


def history(trials: Sequence[TrialRecord]) -> Markup:
    """The Dice of each finished trial, in the order of numbers, and the best so far as a line."""
    done = [trial for trial in trials if trial.dice is not None]
    if not done:
        return Markup()
    low, high = _span([trial.dice or 0.0 for trial in done])
    last = max(trial.number for trial in trials) or 1

    def x(number: int) -> float:
        return _LEFT + number / last * (_WIDTH - _LEFT - _RIGHT)

    parts = [_frame("Dice by trial", low, high)]
    best, steps = -math.inf, []
    for trial in done:
        best = max(best, trial.dice or 0.0)
        steps.append(f"{x(trial.number):.1f},{_y(best, low, high):.1f}")
    parts.append(Markup('<polyline class="axis" points="{}"/>').format(" ".join(steps)))
    for trial in done:
        kind = "far" if trial.is_start else "dot"
        dot = Markup(
            '<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="4"><title>trial {}: {:.4f}</title></circle>'
        )
        parts.append(
            dot.format(kind, x(trial.number), _y(trial.dice or 0.0, low, high), trial.number, trial.dice)
        )
    parts += [_TEXT.format(x(n), _HEIGHT - 14, "middle", n) for n in sorted({0, last})]
    return _svg(f"Dice of {len(done)} finished trials, the best {best:.4f}", parts)


def importance(shares: Mapping[str, float]) -> Markup:
    """A bar for each searched field: its share of the differences between good and other trials."""
    if not shares:
        return Markup()
    ordered = sorted(shares.items(), key=lambda item: -item[1])
    row, left = 24, 220
    parts = []
    for place, (name, share) in enumerate(ordered):
        y = 8 + place * row
        wide = share * (_WIDTH - left - 60)
        parts.append(_TEXT.format(left - 8, y + 14, "end", name))
        bar = Markup('<rect class="bar" x="{}" y="{}" width="{:.1f}" height="16"/>')
        parts += [bar.format(left, y, wide), _TEXT.format(left + wide + 6, y + 14, "start", f"{share:.2f}")]
    words = ", ".join(f"{name} {share:.2f}" for name, share in ordered)
    return _svg(f"importance: {words}", parts, height=16 + row * len(ordered))


def parallel_coordinates(trials: Sequence[TrialRecord], parameters: Mapping[str, Parameter]) -> Markup:
    """A line for each finished trial through its values and its Dice; the better, the more opaque."""
    done = sorted((trial for trial in trials if trial.dice is not None), key=lambda trial: trial.dice or 0.0)
    names = [name for name in parameters if any(name in trial.values for trial in done)]
    if len(done) < 2 or not names:
        return Markup()
    low, high = _span([trial.dice or 0.0 for trial in done])
    gap = (_WIDTH - _LEFT - 2 * _RIGHT) / len(names)
    parts = [_axis(_LEFT + at * gap, name, parameters[name], at) for at, name in enumerate(names)]
    end = _LEFT + len(names) * gap
    line = Markup('<path class="axis" d="M{:.1f} {}V{}"/>')
    parts.append(line.format(end, _TOP, _HEIGHT - _BOTTOM))
    for value, y in ((high, _TOP - 6), (low, _HEIGHT - _BOTTOM + 12)):
        parts.append(_TEXT.format(end, y, "middle", f"Dice {value:.3f}"))
    for trial in done:
        dice = trial.dice or 0.0
        share = (dice - low) / (high - low)
        points = [
            f"{_LEFT + at * gap:.1f},{_place(parameters[name], trial.values[name]):.1f}"
            for at, name in enumerate(names)
            if name in trial.values
        ]
        points.append(f"{end:.1f},{_y(dice, low, high):.1f}")
        drawn = Markup(
            '<polyline points="{}" fill="none" stroke="#0072b2" stroke-width="{:.1f}" '
            'stroke-opacity="{:.2f}"><title>trial {}: {:.4f}</title></polyline>'
        )
        parts.append(drawn.format(" ".join(points), 1 + 2 * share, 0.2 + 0.8 * share, trial.number, dice))
    return _svg(f"values and Dice of {len(done)} trials in parallel coordinates", parts)


def _axis(x: float, name: str, parameter: Parameter, at: int) -> Markup:
    parts = [Markup('<path class="axis" d="M{:.1f} {}V{}"/>').format(x, _TOP, _HEIGHT - _BOTTOM)]
    # Neighbouring names would overlap in one line.
    parts.append(_TEXT.format(x, _HEIGHT - (16 if at % 2 else 4), "middle", name))
    if isinstance(parameter, Choice):
        marks = [(_place(parameter, parameter.encoded(value)), str(value)) for value in parameter.values]
    else:
        marks = [(_place(parameter, value), f"{value:.3g}") for value in (parameter.low, parameter.high)]
    parts += [_TEXT.format(x + 4, y + 3, "start", text[:24]) for y, text in marks]
    return Markup("").join(parts)


def _place(parameter: Parameter, value: object) -> float:
    """The height of a value on the axis of its field."""
    if isinstance(parameter, Range):
        number, low, high = float(str(value)), float(parameter.low), float(parameter.high)
        if parameter.log:
            number, low, high = math.log(number), math.log(low), math.log(high)
        return _y(number, low, high)
    kept = [parameter.encoded(each) for each in parameter.values]
    return _y(kept.index(value) + 0.5, 0, len(kept))


def _y(value: float, low: float, high: float) -> float:
    return _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Smallest and largest value, apart also if all are equal."""
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.01, high + 0.01)


def _frame(name: str, low: float, high: float) -> Markup:
    floor = _HEIGHT - _BOTTOM
    parts = [
        Markup('<text class="name" x="{}" y="16">{}</text>').format(_LEFT, name),
        Markup('<path class="axis" d="M{} {}V{}H{}"/>').format(_LEFT - 8, _TOP, floor, _WIDTH - _RIGHT),
        _TEXT.format(_LEFT - 12, floor, "end", f"{low:.3f}"),
        _TEXT.format(_LEFT - 12, _TOP + 8, "end", f"{high:.3f}"),
    ]
    return Markup("").join(parts)


def _svg(description: str, parts: Sequence[Markup], *, height: int = _HEIGHT) -> Markup:
    return Markup(
        '<figure><svg viewBox="0 0 {width} {height}" role="img" aria-label="{description}">'
        "<title>{description}</title>{drawn}</svg></figure>"
    ).format(width=_WIDTH, height=height, description=description, drawn=Markup("").join(parts))
