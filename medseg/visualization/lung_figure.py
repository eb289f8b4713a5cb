"""A picture of lung measures: low attenuation on the lungs, histograms with thresholds, and regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from medseg.images.palette import BLUE, ORANGE, SKY_BLUE, VERMILLION
from medseg.images.run_length import Array
from medseg.io.overwrite_guard import PICTURE_SOFTWARE
from medseg.visualization.overlays import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BACKGROUND, _INK, _GRID = "#101418", "#E8ECEF", "#5A646E"
_WINDOW_HU = (-1050.0, 150.0)
_COLOURS = {"right_lung": SKY_BLUE, "left_lung": ORANGE, "both_lungs": _INK}


@dataclass(frozen=True)
class LungFigure:
    """What the picture shows.

    Attributes:
        hu: One coronal plane, (X, Z) along R and S.
        lung: bool (X, Z).
        pixel_mm: Size of a voxel along R and S.
        below_hu: Voxels of lung below this are coloured and are the share in the bars.
        thresholds_hu: Lines in the histogram.
        histograms: Lower edge and width in HU, and counts, by structure.
        bars: Percentages by side and part, in the order of the bars.
        title: Heading.
    """

    hu: Array
    lung: Array
    pixel_mm: tuple[float, float]
    below_hu: float
    thresholds_hu: Sequence[float]
    histograms: Mapping[str, tuple[float, float, Sequence[int]]]
    bars: Mapping[str, Mapping[str, float | None]]
    title: str = ""


def draw_lung_figure(figure: LungFigure) -> Picture:
    """The picture as a PNG; radiological view, the patient's left on the right of the picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    page = Figure(figsize=(15, 4.6), facecolor=_BACKGROUND)
    FigureCanvasAgg(page)
    axes = [page.add_axes((left, 0.15, 0.27, 0.7)) for left in (0.02, 0.36, 0.71)]
    _plane(axes[0], figure)
    _histogram(axes[1], figure)
    _bars(axes[2], figure)
    for each in axes[1:]:
        each.set_facecolor(_BACKGROUND)
        each.tick_params(colors=_INK)
        for spine in each.spines.values():
            spine.set_color(_GRID)
    page.text(0.5, 0.97, figure.title, color=_INK, ha="center", va="top", fontsize=13)
    page.text(0.99, 0.97, "research use only", color=_INK, ha="right", va="top", fontsize=8, alpha=0.7)
    out = BytesIO()
    page.savefig(out, format="png", dpi=80, facecolor=_BACKGROUND, metadata={"Software": PICTURE_SOFTWARE})
    return Picture(out.getvalue())


def _plane(axes: Axes, figure: LungFigure) -> None:
    low, high = _WINDOW_HU
    grey = ((np.asarray(figure.hu, np.float64) - low) / (high - low)).clip(0, 1)
    colours = np.repeat(grey[..., None], 3, axis=2)
    dark = figure.lung & (figure.hu < figure.below_hu)
    colours[dark] = [int(VERMILLION[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    width, height = (n * mm for n, mm in zip(figure.hu.shape, figure.pixel_mm, strict=True))
    axes.imshow(colours[::-1].transpose(1, 0, 2), origin="lower", extent=(0, width, 0, height))
    axes.set_axis_off()
    axes.set_title(f"below {figure.below_hu:g} HU, one coronal plane", color=_INK, fontsize=11)
    for x, letter in ((0.02, "R"), (0.98, "L")):
        axes.text(x, 0.5, letter, transform=axes.transAxes, color=_INK, ha="center", fontweight="bold")


def _histogram(axes: Axes, figure: LungFigure) -> None:
    for name, (low, width, counts) in figure.histograms.items():
        share = 100 * np.asarray(counts, np.float64) / max(1, sum(counts))
        places = low + width * (np.arange(len(counts)) + 0.5)
        axes.plot(places, share, color=_COLOURS.get(name, BLUE), label=name.replace("_", " "))
    for threshold in figure.thresholds_hu:
        axes.axvline(threshold, color=_GRID, linestyle="--", linewidth=1)
        number = axes.text(threshold, 1.01, f"{threshold:g}", transform=axes.get_xaxis_transform())
        number.set(color=_INK, fontsize=7, rotation=60)
    axes.set_xlabel("HU", color=_INK)
    axes.set_ylabel("% of voxels per bin", color=_INK)
    if figure.histograms:
        axes.legend(facecolor=_BACKGROUND, labelcolor=_INK, edgecolor="none", fontsize=8)


def _bars(axes: Axes, figure: LungFigure) -> None:
    parts = list(dict.fromkeys(part for bars in figure.bars.values() for part in bars))
    for number, (name, bars) in enumerate(figure.bars.items()):
        heights = [bars.get(part) or 0.0 for part in parts]
        places = np.arange(len(parts)) + (number - 0.5 * (len(figure.bars) - 1)) * 0.4
        axes.bar(places, heights, 0.38, color=_COLOURS.get(name, BLUE), label=name.replace("_", " "))
    axes.set_xticks(range(len(parts)), [part.split("_")[0] for part in parts])
    axes.set_ylabel(f"% below {figure.below_hu:g} HU", color=_INK)
    if figure.bars:
        axes.legend(facecolor=_BACKGROUND, labelcolor=_INK, edgecolor="none", fontsize=8)
