"""A mask over its scan, as a picture."""

from __future__ import annotations

from pathlib import Path

from medseg.images.volume import Mask, Volume
from medseg.io.foreign_images import MaskLike, ScanLike, as_mask, as_volume
from medseg.io.formats import picture_ending
from medseg.io.label_maps import notify_of_labels
from medseg.io.overwrite_guard import OverwriteGuard, is_own_picture
from medseg.io.path_checks import existing
from medseg.io.picture.reader import read_luminance
from medseg.io.read_options import DEFAULT_OPTIONS, ReadOptions
from medseg.recipe import Recipe, Window
from medseg.visualization.labelled_masks import label_every_value, read_named
from medseg.visualization.overlays import Picture, overlay, overlay_picture


def preview(
    scan: ScanLike,
    mask: MaskLike,
    output: str | Path | None = None,
    *,
    recipe: str | Path | None = None,
    window_hu: tuple[float, float] | None = None,
    slices: int = 8,
    title: str | None = None,
    options: ReadOptions = DEFAULT_OPTIONS,
) -> Picture:
    """A PNG that a notebook displays: three planes and a row of slices, with a contour for each label.

    Radiological view: the patient's left is on the right of the picture.

    Args:
        scan: A path, a volume, or an image of another library that :func:`medseg.as_volume` accepts.
        mask: The mask, in the same forms, on the scan's grid.
        output: A PNG file to write as well.
        recipe: A recipe that names the labels of a mask read from a file, and sets the window.
        window_hu: Intensities (CT: HU) shown as black and as white; by default those of the recipe, the lung
            window for CT, or the 1st and 99th percentile.
        slices: Number of axial slices in the row below, evenly spaced through the labelled region.
        title: Heading of the picture.
        options: How to read the scan when the file leaves a question open.

    Raises:
        InputRefused: the scan or the mask cannot be read or trusted.
        UsageError: the mask is not on the scan's grid (``grid-mismatch``), no such recipe, or the output is
            the scan or the mask (``overwrites-input``), or a file that medseg did not draw
            (``foreign-file``).

    Example:
        >>> picture = medseg.preview("chest.nii.gz", "lungs.nii.gz", "look.png")
        >>> picture[1:4]
        b'PNG'
    """
    if output is not None:
        guard = OverwriteGuard(each for each in (scan, mask) if isinstance(each, str | Path))
        guard.check(output, is_own=is_own_picture)
    is_picture = isinstance(scan, str | Path) and picture_ending(Path(scan)) is not None
    volume = read_luminance(existing(str(scan)), options) if is_picture else as_volume(scan, options)
    notify_of_labels(volume)
    drawn = named_mask(mask, volume, recipe)
    limits = window_hu or (_window_of(recipe) if recipe else None)
    if output is None:
        return overlay_picture(volume, drawn, window_hu=limits, title=title, slices=slices)
    path = overlay(volume, drawn, output, window_hu=limits, title=title, slices=slices)
    return Picture(path.read_bytes())


def named_mask(mask: MaskLike, scan: Volume, recipe: str | Path | None = None) -> Mask:
    """The mask with its labels; a mask without labels gets one per value."""
    if isinstance(mask, str | Path):
        return read_named(mask, scan, None if recipe is None else str(recipe))
    plain = as_mask(mask)
    return plain if plain.labels else label_every_value(plain)


def _window_of(recipe: str | Path) -> tuple[float, float] | None:
    """The recipe's window if it has absolute units; otherwise None."""
    intensity = Recipe.read(recipe).prepare.intensity
    return (intensity.low_hu, intensity.high_hu) if isinstance(intensity, Window) else None
