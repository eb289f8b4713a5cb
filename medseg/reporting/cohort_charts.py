"""Charts of many cases: a measure by group with its interval, and pairs of two visits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from medseg.images.palette import BLUE, VERMILLION, colour_of
from medseg.reporting.charts import short_number
from medseg.reporting.cohort import Change, Estimate
from medseg.reporting.plot_frame import PlotFrame

_LONGEST = 14


def group_chart(name: str, unit: str, estimates: Mapping[str, Estimate]) -> Markup:
    """A dot for each case by group, and the mean with its 95 % interval; empty without values.

    Args:
        name: What is measured.
        unit: Its unit.
        estimates: By group.
    """
    values = [value for each in estimates.values() for value in each.values]
    ends = [end for each in estimates.values() for end in each.interval if math.isfinite(end)]
    if not values:
        return Markup()
    frame = PlotFrame(name, (-0.5, len(estimates) - 0.5), _padded([*values, *ends]))
    ticks = [(float(n), _short(group)) for n, group in enumerate(estimates)]
    parts, summary = [frame.axes("", unit, ticks)], []
    for number, (group, each) in enumerate(estimates.items()):
        middle, wide = frame.x(number), min(40.0, (frame.x(1) - frame.x(0)) * 0.3)
        for order, (value, patient) in enumerate(zip(each.values, each.patients, strict=True)):
            aside = ((order * 7) % 11 - 5) / 5 * wide * 0.6
            dot = Markup(
                '<circle cx="{:.1f}" cy="{:.1f}" r="2.6" fill="{}" fill-opacity="0.75">'
                "<title>{}: {} {}</title></circle>"
            )
            place = middle + aside, frame.y(value)
            parts.append(dot.format(*place, colour_of(number), patient, short_number(value), unit))
        if not each.values:
            continue
        line = Markup('<path class="axis" stroke-width="2" d="M{:.1f} {:.1f}H{:.1f}"/>')
        parts.append(line.format(middle - wide, frame.y(each.mean), middle + wide))
        text = f"{group} mean {short_number(each.mean)}"
        if math.isfinite(each.interval[0]):
            low, high = each.interval
            stem = Markup('<path class="axis" stroke-width="2" d="M{x:.1f} {low:.1f}V{high:.1f}"/>')
            parts.append(stem.format(x=middle, low=frame.y(low), high=frame.y(high)))
            text += f" (95 % CI {short_number(low)} to {short_number(high)})"
        summary.append(text)
    return frame.figure(f"{name}, {unit}: {'; '.join(summary)}", parts)


def paired_chart(name: str, unit: str, change: Change) -> Markup:
    """A line for each patient from the first to the last visit, orange where the value rises."""
    frame = PlotFrame(name, (-0.4, 1.4), _padded([*change.first, *change.last]))
    parts = [frame.axes("", unit, [(0.0, "first visit"), (1.0, "last visit")])]
    for patient, first, last in zip(change.patients, change.first, change.last, strict=True):
        line = Markup(
            '<path d="M{:.1f} {:.1f}L{:.1f} {:.1f}" fill="none" stroke="{}" stroke-width="1.5"{}>'
            "<title>{}: {} to {} {}</title></path>"
        )
        rises = last > first
        dash = Markup("") if rises else Markup(' stroke-dasharray="5 3"')
        ends = frame.x(0), frame.y(first), frame.x(1), frame.y(last)
        shown = patient, short_number(first), short_number(last), unit
        parts.append(line.format(*ends, VERMILLION if rises else BLUE, dash, *shown))
        for place, value in ((0, first), (1, last)):
            dot = Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="2.6"/>')
            parts.append(dot.format(frame.x(place), frame.y(value)))
    return frame.figure(
        f"{name}, {unit}: mean change {change.mean:+.3g} in {len(change.patients)} patients", parts
    )


def _padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or max(abs(high), 1.0) * 0.05
    return (max(0.0, low - room) if low >= 0 else low - room), high + room


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
