"""Pictures: a mask over its scan, and the curves of a training. Matplotlib without a display."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medseg.errors import UsageError
from medseg.io.atomic import replacing
from medseg.volume import Mask, Volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

# Okabe and Ito's palette (2008, jfly.uni-koeln.de/color), told apart by colour-blind eyes; black left out.
COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2")
LUNG_WINDOW_HU = (-1400.0, 200.0)
"""Level -600, width 1600: the usual lung window."""

_BACKGROUND, _INK = "#101418", "#E8ECEF"
_SAME_GRID_MM = 0.01


def overlay(
    volume: Volume,
    mask: Mask,
    path: str | Path,
    *,
    window_hu: tuple[float, float] | None = None,
    title: str | None = None,
) -> Path:
    """Writes a PNG with three planes, each where most is labelled; each label as a coloured contour.

    Radiological view: the patient's left is on the right of the picture. Pixels have their
    physical aspect ratio. An empty mask is shown at the centre of the scan.

    Args:
        volume: The scan.
        mask: On the same grid.
        path: The PNG to write.
        window_hu: Black and white point; by default the lung window for CT, else the 1st and
            99th percentile.
        title: Shown on top.

    Raises:
        UsageError: the mask is not on the scan's grid (more than 0.01 mm at a corner).
    """
    gap = volume.grid.distance_mm(mask.grid)
    if gap > _SAME_GRID_MM:
        raise UsageError(
            f"the mask is not on the scan's grid: {gap:.3g} mm apart",
            where=path,
            remedy="give the mask that was made from this scan",
            reason="grid-mismatch",
        )
    path = Path(path)
    scan, labels = volume.oriented("RAS"), mask.oriented("RAS")
    low, high = window_hu or _window(volume)
    shape, spacing = scan.grid.shape, scan.grid.spacing_mm
    centre = _centre(labels)
    figure = _figure(15, 5.6)
    planes = ((2, 0, 1, "RL", "AP"), (1, 0, 2, "RL", "SI"), (0, 1, 2, "AP", "SI"))
    for number, (across, right, up, sides, ends) in enumerate(planes):
        axes = figure.add_axes((0.01 + number * 0.33, 0.1, 0.32, 0.8))
        cut = _cut(scan.array, across, centre[across])
        extent = (shape[right] * spacing[right], shape[up] * spacing[up])
        axes.imshow(
            cut, cmap="gray", vmin=low, vmax=high, origin="lower", extent=(0, extent[0], 0, extent[1])
        )
        for row, label in enumerate(labels.labels):
            found = _cut(labels.of(label.name), across, centre[across])
            _outline(axes, found, (spacing[right], spacing[up]), _colour(row))
        # x runs to the patient's right (axial, coronal) or to the front (sagittal); both are
        # shown on the left of the picture, as radiologists look at them.
        axes.set_xlim(extent[0], 0)
        axes.set_ylim(0, extent[1])
        axes.set_axis_off()
        _letters(axes, sides, ends)
        if number == 0:
            _scale_bar(axes, extent)
    _legend(figure, labels)
    if title:
        figure.text(0.5, 0.97, title, color=_INK, ha="center", va="top", fontsize=13)
    figure.text(0.99, 0.97, "research use only", color=_INK, ha="right", va="top", fontsize=8, alpha=0.7)
    return _save(figure, path)


def history(table: str | Path, path: str | Path) -> Path:
    """Draws the curves of ``history.csv``: training loss, and validation Dice of each label.

    Args:
        table: CSV with columns epoch, train_loss and val_dice_<label>; empty cells are skipped.
        path: The PNG to write.
    """
    with Path(table).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    figure = _figure(11, 4)
    left, right = (figure.add_axes((x, 0.14, 0.4, 0.74)) for x in (0.07, 0.56))
    _curve(left, rows, "train_loss", "training loss", _INK)
    names = [name for name in (rows[0] if rows else {}) if name.startswith("val_dice_")]
    for number, name in enumerate(names):
        _curve(right, rows, name, name.removeprefix("val_dice_"), _colour(number))
    right.set_ylim(0, 1.02)  # a curve at 1 is not lost in the frame
    for axes, heading in ((left, "Training loss"), (right, "Validation Dice, whole scans")):
        axes.set_title(heading, color=_INK, fontsize=11)
        axes.set_xlabel("epoch", color=_INK)
        axes.set_facecolor(_BACKGROUND)
        axes.tick_params(colors=_INK)
        axes.grid(alpha=0.15)
        for spine in axes.spines.values():
            spine.set_color("#5A646E")
    if right.lines:
        right.legend(facecolor=_BACKGROUND, labelcolor=_INK, edgecolor="none", loc="lower right")
    return _save(figure, Path(path))


def samples(
    images: npt.NDArray[np.float32],
    labels: npt.NDArray[np.float32],
    path: str | Path,
    *,
    names: Sequence[str],
    pixel_mm: tuple[float, float],
) -> Path:
    """Writes a PNG of training patches side by side: labels as coloured contours, unknown voxels in grey.

    Radiological view, as :func:`overlay`. The first patch decides black (1st percentile) and white
    (99th) of all of them, so that changes of intensity are seen.

    Args:
        images: (N, X, Y), axial.
        labels: (N, L, X, Y) of 1, 0 and -1 (unknown).
        path: The PNG to write.
        names: Of the L labels.
        pixel_mm: Size of a voxel along X and Y.
    """
    columns = int(np.ceil(np.sqrt(len(images))))
    rows = -(-len(images) // columns)
    extent = (images.shape[1] * pixel_mm[0], images.shape[2] * pixel_mm[1])
    tile = 2.4 * min(extent[1] / extent[0], 4)
    figure = _figure(2.4 * columns, tile * rows + 0.5)
    bottom = 0.5 / (tile * rows + 0.5)
    low, high = np.percentile(images[0], (1, 99))
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        row, column = divmod(number, columns)
        place = (column / columns, 1 - (row + 1) * (1 - bottom) / rows)
        axes = figure.add_axes((*place, 0.98 / columns, 0.98 * (1 - bottom) / rows))
        axes.imshow(
            image.T,
            cmap="gray",
            vmin=low,
            vmax=max(high, low + 1e-3),
            origin="lower",
            extent=(0, extent[0], 0, extent[1]),
        )
        _outline(axes, (label == -1).any(0).T, pixel_mm, "#8A949E")
        for order, found in enumerate(label == 1):
            _outline(axes, found.T, pixel_mm, _colour(order))
        axes.set_xlim(extent[0], 0)
        axes.set_ylim(0, extent[1])
        axes.set_axis_off()
        if number == 0:
            _letters(axes, "RL", "AP")
            heading = axes.text(0.03, 0.97, "as it is", transform=axes.transAxes, color=_INK, va="top")
            _readable(heading)
    for order, name in enumerate(names[:6]):
        told = f"■ {name.replace('_', ' ')}" if order < 5 or len(names) == 6 else f"+ {len(names) - 5} more"
        figure.text(0.015 + order / 6, bottom / 3, told, color=_colour(order), fontsize=9)
    return _save(figure, Path(path))


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor=_BACKGROUND)
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> Path:
    with replacing(path) as fresh:
        # No software version or date in the file: equal pictures are equal bytes.
        figure.savefig(
            fresh,
            format="png",
            dpi=80,
            facecolor=_BACKGROUND,
            metadata={"Software": None},
            pil_kwargs={"optimize": True},
        )
    return path


def _window(volume: Volume) -> tuple[float, float]:
    if volume.source.modality == "CT" or float(volume.array.min()) <= -900:
        return LUNG_WINDOW_HU
    low, high = np.percentile(volume.array, (1, 99))
    return float(low), float(max(high, low + 1))


def _centre(mask: Mask) -> tuple[int, int, int]:
    """For each axis the slice with the most labelled voxels; the middle slice of an empty mask."""
    found = mask.array > 0
    x, y, z = (
        int(np.argmax(found.sum(axis=tuple(a for a in range(3) if a != axis)))) if found.any() else n // 2
        for axis, n in enumerate(mask.grid.shape)
    )
    return x, y, z


def _cut(array: npt.NDArray[Any], across: int, at: int) -> npt.NDArray[Any]:
    """One plane as rows (up) x columns (right)."""
    plane: npt.NDArray[Any] = np.take(array, at, axis=across).T
    return plane


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _outline(axes: Axes, found: npt.NDArray[np.bool_], pixel_mm: tuple[float, float], colour: str) -> None:
    """The contour of one label in one plane, rows (up) x columns (right)."""
    if not found.any():
        return
    # The margin of background closes contours at the edge of the scan, and a plane that is one
    # voxel thin has a contour too.
    padded = np.pad(found, 1)
    x = (np.arange(padded.shape[1]) - 0.5) * pixel_mm[0]
    y = (np.arange(padded.shape[0]) - 0.5) * pixel_mm[1]
    axes.contour(x, y, padded, levels=[0.5], colors=[colour], linewidths=1.4).set_clip_on(False)


def _readable(text: Text) -> None:
    """A dark rim: white letters on white bone can be read."""
    from matplotlib.patheffects import withStroke

    text.set_path_effects([withStroke(linewidth=2.5, foreground=_BACKGROUND)])


def _letters(axes: Axes, sides: str, ends: str) -> None:
    """Where the patient's sides are: ``sides`` left and right in the picture, ``ends`` top and bottom."""
    for x, y, letter in (
        (0.03, 0.5, sides[0]),
        (0.97, 0.5, sides[1]),
        (0.5, 0.97, ends[0]),
        (0.5, 0.03, ends[1]),
    ):
        text = axes.text(x, y, letter, transform=axes.transAxes, color=_INK, fontsize=12, fontweight="bold")
        text.set(ha="center", va="center")
        _readable(text)


def _scale_bar(axes: Axes, extent: tuple[float, float], length_mm: float = 50.0) -> None:
    x, y = extent[0] * 0.95, extent[1] * 0.05
    axes.plot([x, x - length_mm], [y, y], color=_INK, linewidth=2.5, solid_capstyle="butt")
    name = f"{length_mm:.0f} mm"
    _readable(axes.text(x - length_mm / 2, y * 1.4, name, color=_INK, ha="center", fontsize=8))


def _legend(figure: Figure, mask: Mask, a_row: int = 8) -> None:
    """Names and volumes in one or two rows; what does not fit is counted."""
    entries = list(mask.volumes_ml().items())
    shown = entries[: 2 * a_row] if len(entries) <= 2 * a_row else entries[: 2 * a_row - 1]
    columns = min(max(len(shown), 6), a_row)
    for number, (name, volume_ml) in enumerate(shown):
        row, column = divmod(number, columns)
        digits = 0 if volume_ml >= 10 else 1 if volume_ml >= 1 else 2
        text = f"■ {name.replace('_', ' ')}  {volume_ml:.{digits}f} ml"
        x, y = 0.015 + column * 0.98 / columns, 0.045 - 0.035 * row
        figure.text(x, y, text, color=_colour(number), fontsize=10)
    if len(shown) < len(entries):
        text = f"+ {len(entries) - len(shown)} more"
        figure.text(0.015 + (columns - 1) * 0.98 / columns, 0.01, text, color=_INK, fontsize=10)


def _curve(axes: Axes, rows: Sequence[dict[str, str]], column: str, label: str, colour: str) -> None:
    points = [(int(row["epoch"]), float(row[column])) for row in rows if row.get(column)]
    if points:
        x, y = zip(*points, strict=True)
        axes.plot(x, y, color=colour, label=label, marker="o", markersize=3, linewidth=1.6)
