"""Pictures of masks over their scans and of training curves, drawn with matplotlib without a display."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from medseg.errors import InputRefused, UsageError
from medseg.images.mask_placement import placed_on
from medseg.images.palette import BLUE, VERMILLION, colour_of, label_colour
from medseg.images.volume import PICTURE, Mask, Volume, Voxels, members
from medseg.images.volume_text import volume_text
from medseg.io.overwrite_guard import PICTURE_SOFTWARE
from medseg.system.atomic_write import replacing
from medseg.visualization.planes import AXIAL, PLANES, Plane, upright
from medseg.visualization.thumbnails import centre, window

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text

_BACKGROUND, _INK = "#101418", "#E8ECEF"
_PAPER, _PAPER_INK = "#FFFFFF", "#1B2127"
_ROW = 2.1  # height in inches of the row of axial slices


class Picture(bytes):
    """The bytes of a PNG that a notebook displays."""

    def _repr_png_(self) -> bytes:
        return bytes(self)


def overlay(
    volume: Volume,
    mask: Mask,
    path: str | Path,
    *,
    window_hu: tuple[float, float] | None = None,
    title: str | None = None,
    slices: int = 0,
) -> Path:
    """Writes a PNG of three planes through the largest labelled areas, with a contour for each label.

    Radiological view: the patient's left is on the right of the picture. Pixels have their
    physical aspect ratio. With an empty mask the planes go through the centre of the scan. A scan of
    one plane is drawn without and with contours.

    Args:
        volume: The scan.
        mask: The mask, on the same grid.
        path: The PNG to write.
        window_hu: Black and white point; by default the lung window for CT, otherwise the 1st and
            99th percentile.
        title: Heading of the picture.
        slices: Number of axial planes in a row below, evenly spaced through the labelled region.

    Raises:
        UsageError: the mask is not on the scan's grid (``grid-mismatch``).
    """
    return _save(_drawn(volume, mask, window_hu, title, slices), Path(path))


def overlay_picture(
    volume: Volume,
    mask: Mask,
    *,
    window_hu: tuple[float, float] | None = None,
    title: str | None = None,
    slices: int = 8,
) -> Picture:
    """The picture of :func:`overlay` in memory; arguments and errors as there."""
    figure, out = _drawn(volume, mask, window_hu, title, slices), BytesIO()
    figure.savefig(out, format="png", dpi=80, facecolor=_BACKGROUND)
    return Picture(out.getvalue())


def _drawn(
    volume: Volume, mask: Mask, window_hu: tuple[float, float] | None, title: str | None, slices: int
) -> Figure:
    """The figure of :func:`overlay`."""
    try:
        mask = placed_on(mask, volume.grid)
    except InputRefused as error:
        raise UsageError(
            error.problem,
            where=mask.source.path,
            remedy=f"give the mask of {volume.source.path or 'this scan'}",
            reason="grid-mismatch",
        ) from error
    scan, labels = volume.oriented("RAS"), mask.oriented("RAS")
    limits = window_hu or window(volume)
    if scan.grid.shape[2] == 1:
        return _flat(scan, labels, limits, title)
    middle = centre(labels, scan)
    below = _ROW if slices else 0.0
    height = 5.6 + below
    figure = _figure(15, height)
    for number, plane in enumerate(PLANES):
        place = (0.01 + number * 0.33, (0.56 + below) / height, 0.32, 4.48 / height)
        axes = figure.add_axes(place)
        _plane(axes, scan, labels, plane, middle[plane.across], limits)
        _letters(axes, plane)
        if number == 0:
            _scale_bar(axes, plane.size_mm(scan.grid))
    for number, at in enumerate(_through(labels, slices)):
        place = (0.01 + number * 0.98 / slices, 0.5 / height, 0.97 / slices, (_ROW - 0.05) / height)
        axes = figure.add_axes(place)
        _plane(axes, scan, labels, AXIAL, at, limits)
        number_of = axes.text(0.04, 0.9, f"{at + 1}", transform=axes.transAxes, color=_INK, fontsize=8)
        _readable(number_of)
    _legend(figure, labels)
    if title:
        figure.text(0.5, 0.97, title, color=_INK, ha="center", va="top", fontsize=13)
    figure.text(0.99, 0.97, "research use only", color=_INK, ha="right", va="top", fontsize=8, alpha=0.7)
    return figure


def _flat(scan: Volume, labels: Mask, limits: tuple[float, float], title: str | None) -> Figure:
    """The figure of a scan of one plane: without and with contours, side by side."""
    wide, tall = AXIAL.size_mm(scan.grid)
    height = min(max(7.2 * tall / wide, 2.0), 14.0)
    figure = _figure(15, height + 1)
    plain = Mask(np.zeros_like(labels.array), labels.grid, labels.labels)
    for number, drawn in enumerate((plain, labels)):
        axes = figure.add_axes((0.01 + number * 0.495, 0.6 / (height + 1), 0.485, height / (height + 1)))
        _plane(axes, scan, drawn, AXIAL, 0, limits)
    _legend(figure, labels)
    if title:
        figure.text(0.5, 0.99, title, color=_INK, ha="center", va="top", fontsize=13)
    figure.text(0.99, 0.99, "research use only", color=_INK, ha="right", va="top", fontsize=8, alpha=0.7)
    return figure


def _plane(
    axes: Axes,
    scan: Volume,
    labels: Mask,
    plane: Plane,
    at: int,
    limits: tuple[float, float],
) -> None:
    """Draws one plane of arrays in RAS order, with contours."""
    _image(axes, plane.cut(scan.array, at), plane.size_mm(scan.grid), limits)
    found = plane.cut(labels.array, at)
    for label in labels.labels:
        _outline(axes, members(found, label), plane.pixel_mm(scan.grid), label_colour(label))


def _image(axes: Axes, picture: Voxels, size_mm: tuple[float, float], limits: tuple[float, float]) -> None:
    """Draws grey values (rows, columns); x and y are in mm from the lower right corner, leftwards and up."""
    width, height = size_mm
    upwards, extent = picture[::-1, ::-1], (0, width, 0, height)
    axes.imshow(upwards, cmap="gray", vmin=limits[0], vmax=limits[1], extent=extent, origin="lower")
    axes.set_xlim(width, 0)
    axes.set_ylim(0, height)
    axes.set_axis_off()


def _through(labels: Mask, slices: int) -> list[int]:
    """Axial slices, evenly spaced from the highest to the lowest labelled one."""
    found = np.flatnonzero(labels.array.any(axis=(0, 1)))
    low, high = (found[0], found[-1]) if len(found) else (0, labels.grid.shape[2] - 1)
    # Each in the middle of an equal part, because the outermost slices show little.
    return [round(high - (n + 0.5) / slices * (high - low)) for n in range(slices)]


def history(table: str | Path, path: str | Path) -> Path:
    """Writes a PNG of the curves in ``history.csv``: losses, and validation Dice of each label.

    It is dark on white, for pages, notebooks and print.

    Args:
        table: CSV with columns epoch, train_loss, val_loss and val_dice_<label>; empty cells are skipped.
        path: The PNG to write.
    """
    with Path(table).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    figure = _figure(11, 4, _PAPER)
    left, right = (figure.add_axes((x, 0.14, 0.4, 0.74)) for x in (0.07, 0.56))
    _curve(left, rows, "train_loss", "training", BLUE)
    _curve(left, rows, "val_loss", "validation, a patch of each scan", VERMILLION)
    names = [name for name in (rows[0] if rows else {}) if name.startswith("val_dice_")]
    for number, name in enumerate(names):
        _curve(right, rows, name, name.removeprefix("val_dice_"), colour_of(number))
    right.set_ylim(0, 1.02)  # a curve at 1 stays visible below the frame
    for axes, heading in ((left, "Loss"), (right, "Validation Dice, whole scans")):
        axes.set_title(heading, color=_PAPER_INK, fontsize=11)
        axes.set_xlabel("epoch", color=_PAPER_INK)
        axes.tick_params(colors=_PAPER_INK)
        axes.grid(alpha=0.25)
        for spine in axes.spines.values():
            spine.set_color("#8A949E")
    if left.lines:
        left.legend(edgecolor="none", labelcolor=_PAPER_INK, loc="upper right")
    if right.lines:
        right.legend(edgecolor="none", labelcolor=_PAPER_INK, loc="lower right")
    return _save(figure, Path(path), _PAPER)


def samples(
    images: npt.NDArray[np.float32],
    labels: npt.NDArray[np.float32],
    path: str | Path,
    *,
    names: Sequence[str],
    pixel_mm: tuple[float, float],
) -> Path:
    """Writes a PNG of training patches side by side: labels as coloured contours, unknown voxels in grey.

    Radiological view, as in :func:`overlay`. The first patch sets black (1st percentile) and white
    (99th percentile) for all patches, so that changes of intensity are visible.

    Args:
        images: (N, X, Y), axial.
        labels: (N, L, X, Y) of 1, 0 and -1 (unknown).
        path: The PNG to write.
        names: Names of the L labels.
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
        _image(axes, upright(image), extent, (low, max(high, low + 1e-3)))
        _outline(axes, upright((label == -1).any(0)), pixel_mm, "#8A949E")
        for order, found in enumerate(label == 1):
            _outline(axes, upright(found), pixel_mm, colour_of(order))
        if number == 0:
            _letters(axes, AXIAL)
            heading = axes.text(0.03, 0.97, "original", transform=axes.transAxes, color=_INK, va="top")
            _readable(heading)
    for order, name in enumerate(names[:6]):
        text = f"■ {name.replace('_', ' ')}" if order < 5 or len(names) == 6 else f"+ {len(names) - 5} more"
        figure.text(0.015 + order / 6, bottom / 3, text, color=colour_of(order), fontsize=9)
    return _save(figure, Path(path))


def _figure(width: float, height: float, background: str = _BACKGROUND) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor=background)
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path, background: str = _BACKGROUND) -> Path:
    with replacing(path) as fresh:
        # The name, but no version or date: equal pictures have equal bytes, and are known as medseg's.
        figure.savefig(
            fresh,
            format="png",
            dpi=80,
            facecolor=background,
            metadata={"Software": PICTURE_SOFTWARE},
            pil_kwargs={"optimize": True},
        )
    return path


def _outline(axes: Axes, found: npt.NDArray[np.bool_], pixel_mm: tuple[float, float], colour: str) -> None:
    """The contour of one label in one plane (rows, columns)."""
    if not found.any():
        return
    # The margin of background closes contours at the edge of the scan, and a plane that is one
    # voxel thin has a contour too.
    padded = np.pad(found, 1)
    x = (np.arange(padded.shape[1]) - 0.5)[::-1] * pixel_mm[0]
    y = (np.arange(padded.shape[0]) - 0.5)[::-1] * pixel_mm[1]
    axes.contour(x, y, padded, levels=[0.5], colors=[colour], linewidths=1.4).set_clip_on(False)


def _readable(text: Text) -> None:
    """A dark rim: white letters on white bone can be read."""
    from matplotlib.patheffects import withStroke

    text.set_path_effects([withStroke(linewidth=2.5, foreground=_BACKGROUND)])


def _letters(axes: Axes, plane: Plane) -> None:
    """Marks the patient's sides with letters."""
    for x, y, letter in (
        (0.03, 0.5, plane.sides[0]),
        (0.97, 0.5, plane.sides[1]),
        (0.5, 0.97, plane.ends[0]),
        (0.5, 0.03, plane.ends[1]),
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
    """Writes names and volumes (pixels of a picture) in up to two rows, and how many do not fit."""
    flat = mask.source.format == PICTURE
    entries = list((mask.pixels() if flat else mask.volumes_ml()).items())
    shown = entries[: 2 * a_row] if len(entries) <= 2 * a_row else entries[: 2 * a_row - 1]
    columns = min(max(len(shown), 6), a_row)
    for number, (name, size) in enumerate(shown):
        row, column = divmod(number, columns)
        text = f"■ {name.replace('_', ' ')}  {f'{size} pixels' if flat else volume_text(size)}"
        x, y = 0.015 + column * 0.98 / columns, 0.045 - 0.035 * row
        figure.text(x, y, text, color=label_colour(mask.labels[number]), fontsize=10)
    if len(shown) < len(entries):
        text = f"+ {len(entries) - len(shown)} more"
        figure.text(0.015 + (columns - 1) * 0.98 / columns, 0.01, text, color=_INK, fontsize=10)


def _curve(axes: Axes, rows: Sequence[dict[str, str]], column: str, label: str, colour: str) -> None:
    points = [(int(row["epoch"]), float(row[column])) for row in rows if row.get(column)]
    if points:
        x, y = zip(*points, strict=True)
        axes.plot(x, y, color=colour, label=label, marker="o", markersize=3, linewidth=1.6)
