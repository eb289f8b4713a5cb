"""Charts of the lungs of a case or of many: histograms with thresholds, and shares by region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from medseg.images.palette import ORANGE, SKY_BLUE
from medseg.measurement.lung_labels import SIDES
from medseg.measurement.measure_picture import PARTS_SHOWN, THRESHOLDS_HU
from medseg.reporting.charts import short_number
from medseg.reporting.plot_frame import BOTTOM, HEIGHT, TOP, PlotFrame, legend, round_up
from medseg.visualization.lung_record import HistogramRecord, LungRecord

SHOWN_HU = (-1050.0, 50.0)
_COLOURS = {"right_lung": SKY_BLUE, "left_lung": ORANGE}
_DASHES = {"right_lung": "", "left_lung": "5 3"}

Curve = tuple[str, str, str, HistogramRecord]
"""Name, colour, dash pattern and histogram."""


def case_charts(record: LungRecord) -> Markup:
    """The histograms of both lungs of a case, and its shares of low attenuation by region."""
    curves: list[Curve] = [
        (side.replace("_", " "), _COLOURS[side], _DASHES[side], record["histograms"][side])
        for side in SIDES
        if side in record["histograms"]
    ]
    bars = {side: record["bars"].get(side, {}) for side in SIDES}
    heights = {side: {part: (parts.get(part), None) for part in PARTS_SHOWN} for side, parts in bars.items()}
    return hu_histogram("Histogram", curves) + region_bars(
        f"Below {record['below_hu']:g} HU by region", record["below_hu"], heights
    )


def hu_histogram(name: str, curves: Sequence[Curve]) -> Markup:
    """Percentage of the voxels in each bin, with thresholds marked; empty without voxels.

    Args:
        name: Heading.
        curves: One for each line.
    """
    shares = {curve[0]: _shares(curve[3]) for curve in curves}
    shares = {label: share for label, share in shares.items() if len(share)}
    if not shares:
        return Markup()
    most = round_up(max(float(share[:, 1].max()) for share in shares.values()))
    frame = PlotFrame(name, SHOWN_HU, (0.0, most))
    widths = {curve[3]["width"] for curve in curves}
    each = f"% of voxels per {widths.pop():g} HU" if len(widths) == 1 else "% of voxels"
    ticks = [(float(hu), f"{hu}") for hu in range(-1000, 1, 250)]
    parts = [frame.axes("HU", each, ticks)]
    for number, threshold in enumerate(THRESHOLDS_HU):
        line = Markup('<path class="limit" stroke-dasharray="2 3" d="M{x:.1f} {top}V{floor}"/>')
        parts.append(line.format(x=frame.x(threshold), top=TOP, floor=HEIGHT - BOTTOM))
        text = Markup('<text class="unit" x="{:.1f}" y="{}" text-anchor="middle">{:g}</text>')
        # On two levels, because neighbours are closer than a number is wide.
        parts.append(text.format(frame.x(threshold), TOP - 2 - 8 * (number % 2), threshold))
    for label, colour, dash, _ in curves:
        if label in shares:
            places = [f"{frame.x(hu):.1f} {frame.y(share):.1f}" for hu, share in shares[label]]
            line = Markup('<path d="M{}" fill="none" stroke="{}" stroke-width="1.8" stroke-dasharray="{}"/>')
            parts.append(line.format("L".join(places), colour, dash))
    kept = [curve for curve in curves if curve[0] in shares]
    parts.append(legend([(label, colour) for label, colour, _, _ in kept], [dash for _, _, dash, _ in kept]))
    peaks = ", ".join(
        f"{label} most voxels at {share[share[:, 1].argmax(), 0]:.0f} HU" for label, share in shares.items()
    )
    return frame.figure(f"{name}, % of voxels by HU: {peaks}", parts)


def region_bars(
    name: str,
    below_hu: float,
    heights: Mapping[str, Mapping[str, tuple[float | None, tuple[float, float] | None]]],
) -> Markup:
    """Bars of the share below a threshold by part of the lung and side; empty without any.

    Args:
        name: Heading.
        below_hu: The threshold.
        heights: Percentage and its interval, by side and part of `PARTS_SHOWN`; None where unknown.
    """
    known = [value for parts in heights.values() for value, _ in parts.values() if value is not None]
    ends = [ends[1] for parts in heights.values() for _, ends in parts.values() if ends]
    if not known:
        return Markup()
    frame = PlotFrame(name, (-0.5, len(PARTS_SHOWN) - 0.5), (0.0, round_up(max(*known, *ends, 0.0))))
    ticks = [(float(place), part.split("_")[0]) for place, part in enumerate(PARTS_SHOWN)]
    parts = [frame.axes("thirds by volume, halves, core and rind", f"% below {below_hu:g} HU", ticks)]
    wide = (frame.x(1) - frame.x(0)) * 0.38
    values = []
    for number, side in enumerate(SIDES):
        for place, part in enumerate(PARTS_SHOWN):
            value, interval = heights.get(side, {}).get(part, (None, None))
            if value is None:
                continue
            left = frame.x(place) + (number - 1) * wide
            title = f"{side} {part}: {short_number(value)} %".replace("_", " ")
            bar = Markup(
                '<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill="{}">'
                "<title>{}</title></rect>"
            )
            tall = HEIGHT - BOTTOM - frame.y(value)
            parts.append(bar.format(left, frame.y(value), wide - 1, tall, _COLOURS[side], title))
            if interval:
                line = Markup('<path class="axis" d="M{x:.1f} {low:.1f}V{high:.1f}"/>')
                middle = left + wide / 2 - 0.5
                parts.append(line.format(x=middle, low=frame.y(interval[0]), high=frame.y(interval[1])))
            values.append(title)
    parts.append(legend([(side.replace("_", " "), _COLOURS[side]) for side in SIDES]))
    return frame.figure(f"{name}: {'; '.join(values)}", parts)


def _shares(record: HistogramRecord) -> np.ndarray:
    """Middle of each shown bin in HU and percentage of all voxels in it, (n, 2); empty without voxels."""
    counts = np.asarray(record["counts"], np.float64)
    middles = record["low"] + record["width"] * (np.arange(len(counts)) + 0.5)
    inside = (middles >= SHOWN_HU[0]) & (middles <= SHOWN_HU[1])
    if not counts.sum():
        return np.zeros((0, 2))
    return np.stack([middles[inside], 100 * counts[inside] / counts.sum()], axis=1)
