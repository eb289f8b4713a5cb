"""A picture of lung measures: low attenuation on the lungs, histograms with thresholds, and regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from medseg.images.palette import BLUE, ORANGE, SKY_BLUE, VERMILLION, rgb
from medseg.images.run_length import Array
from medseg.io.overwrite_guard import PICTURE_SOFTWARE
from medseg.visualization.annotations import SCALE_MM
from medseg.visualization.overlays import Picture
from medseg.visualization.planes import CORONAL, coloured, grey_levels, upright
from medseg.visualization.thumbnails import LUNG_WINDOW_HU

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BACKGROUND, _INK, _GRID = "#101418", "#E8ECEF", "#5A646E"
_SHOWN_HU = (-1050.0, 150.0)
_DPI, _ROW_PX, _SMALL = 80, 900, 9
_STYLES = {"right_lung": "-", "left_lung": "--", "both_lungs": ":"}
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
        rind_mm: Depth of the rind in the bars.
        title: Heading.
    """

    hu: Array
    lung: Array
    pixel_mm: tuple[float, float]
    below_hu: float
    thresholds_hu: Sequence[float]
    histograms: Mapping[str, tuple[float, float, Sequence[int]]]
    bars: Mapping[str, Mapping[str, float | None]]
    rind_mm: float
    title: str = ""


def draw_lung_figure(figure: LungFigure, width_px: int = 1280) -> Picture:
    """The picture as a PNG; radiological view, the patient's left on the right of the picture.

    Args:
        figure: What it shows.
        width_px: Width of the picture. Below 900 pixels its three parts stand one below the other.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    in_a_row = width_px >= _ROW_PX
    height_px = round(0.31 * width_px) if in_a_row else round(2.6 * width_px)
    page = Figure(figsize=(width_px / _DPI, height_px / _DPI), facecolor=_BACKGROUND)
    FigureCanvasAgg(page)
    if in_a_row:
        places = [(left, 0.16, 0.27, 0.68) for left in (0.02, 0.36, 0.71)]
    else:
        places = [(0.15, bottom, 0.8, 0.24) for bottom in (0.715, 0.395, 0.075)]
    axes = [page.add_axes(place) for place in places]
    _plane(axes[0], figure)
    _histogram(axes[1], figure)
    _bars(axes[2], figure)
    for each in axes[1:]:
        each.set_facecolor(_BACKGROUND)
        each.tick_params(colors=_INK, labelsize=_SMALL)
        for spine in each.spines.values():
            spine.set_color(_GRID)
    page.text(0.5, 0.995, figure.title, color=_INK, ha="center", va="top", fontsize=12)
    page.text(0.99, 0.005, "research use only", color=_INK, ha="right", va="bottom", fontsize=8, alpha=0.7)
    out = BytesIO()
    page.savefig(out, format="png", dpi=_DPI, facecolor=_BACKGROUND, metadata={"Software": PICTURE_SOFTWARE})
    return Picture(out.getvalue())


def attenuation_colours(figure: LungFigure) -> npt.NDArray[np.uint8]:
    """The plane with low attenuation in vermilion, uint8 (rows from the top, columns, RGB).

    The patient's right is on the left.
    """
    tile = coloured(grey_levels(upright(figure.hu), LUNG_WINDOW_HU))
    tile[upright(figure.lung & (figure.hu < figure.below_hu))] = rgb(VERMILLION)
    return tile


def _plane(axes: Axes, figure: LungFigure) -> None:
    from matplotlib.patheffects import withStroke

    rim = [withStroke(linewidth=2.5, foreground=_BACKGROUND)]  # white letters on bone can be read
    width, height = (n * mm for n, mm in zip(figure.hu.shape, figure.pixel_mm, strict=True))
    axes.imshow(attenuation_colours(figure), extent=(0, width, 0, height), interpolation="nearest")
    axes.set_axis_off()
    title = f"below {figure.below_hu:g} HU in colour, one coronal plane"
    axes.set_title(title, color=_INK, fontsize=11)
    for x, letter in zip((0.03, 0.97), CORONAL.sides, strict=True):
        text = axes.text(x, 0.5, letter, transform=axes.transAxes, color=_INK)
        text.set(ha="center", fontweight="bold", fontsize=12, path_effects=rim)
    if width > 2 * SCALE_MM:
        ends = [width * 0.97 - SCALE_MM, width * 0.97]
        axes.plot(ends, [height * 0.04] * 2, color=_INK, linewidth=2.5, path_effects=rim)
        name = axes.text(sum(ends) / 2, height * 0.06, f"{SCALE_MM} mm", color=_INK)
        name.set(ha="center", va="bottom", fontsize=_SMALL, path_effects=rim)


def _histogram(axes: Axes, figure: LungFigure) -> None:
    for name, (low, width, counts) in figure.histograms.items():
        share = 100 * np.asarray(counts, np.float64) / max(1, sum(counts))
        places = low + width * (np.arange(len(counts)) + 0.5)
        style = _STYLES.get(name, "-")
        axes.plot(places, share, style, color=_COLOURS.get(name, BLUE), label=name.replace("_", " "))
    for number, threshold in enumerate(figure.thresholds_hu):
        axes.axvline(threshold, color=_GRID, linestyle="--", linewidth=1)
        # On two levels, because neighbours are closer than a number is wide.
        at = (threshold, 1.01 + 0.06 * (number % 2))
        text = axes.text(*at, f"{threshold:g}", transform=axes.get_xaxis_transform())
        text.set(color=_INK, fontsize=_SMALL, ha="center", va="bottom")
    axes.set_xlim(*_SHOWN_HU)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("HU", color=_INK)
    widths = sorted({width for _, width, _ in figure.histograms.values()})
    axes.set_ylabel(f"% of voxels per {widths[0]:g} HU" if len(widths) == 1 else "% of voxels", color=_INK)
    if figure.histograms:
        axes.legend(facecolor=_BACKGROUND, labelcolor=_INK, edgecolor="none", fontsize=_SMALL)


def _bars(axes: Axes, figure: LungFigure) -> None:
    parts = list(dict.fromkeys(part for bars in figure.bars.values() for part in bars))
    for number, (name, bars) in enumerate(figure.bars.items()):
        heights = [bars.get(part) or 0.0 for part in parts]
        places = np.arange(len(parts)) + (number - 0.5 * (len(figure.bars) - 1)) * 0.4
        axes.bar(places, heights, 0.38, color=_COLOURS.get(name, BLUE), label=name.replace("_", " "))
    axes.set_xticks(range(len(parts)), [part.split("_")[0] for part in parts], rotation=20)
    axes.set_ylabel(f"% of voxels below {figure.below_hu:g} HU", color=_INK)
    axes.set_xlabel(f"thirds by volume, halves, core and rind of {figure.rind_mm:g} mm", color=_INK)
    if figure.bars:
        axes.legend(facecolor=_BACKGROUND, labelcolor=_INK, edgecolor="none", fontsize=_SMALL)
