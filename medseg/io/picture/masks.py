"""Pictures as masks: grey values and numbers of a palette are label values, or colours have labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from medseg.errors import InputRefused
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.volume import PICTURE, Mask, Source, Voxels, whole_numbers
from medseg.io.error_context import refusing
from medseg.io.picture import colours
from medseg.io.picture.raster import Raster
from medseg.io.picture.reader import check_alpha, decode, grid_of, is_grey
from medseg.system.notices import notify


@dataclass(frozen=True)
class MaskCoding:
    """What the pixels of a mask picture stand for, beyond the values of labels.

    Attributes:
        colours: Colour (``#rrggbb``) of each label by its name, and of ``background`` (black by default) and
            ``ignore``; empty if masks hold label values.
        ignore_value: The value of unknown pixels.

    Example:
        >>> medseg.MaskCoding({"nucleus": "#ff0000"}).ignore_value is None
        True
    """

    colours: Mapping[str, str] = field(default_factory=dict)
    ignore_value: int | None = None


DEFAULT_CODING = MaskCoding()


def read_mask(
    path: Path, labels: Sequence[Label], grid: Grid | None = None, coding: MaskCoding = DEFAULT_CODING
) -> Mask:
    """The mask in a PNG or TIFF picture, (columns, rows, 1).

    Values of grey pictures and numbers of palettes are label values. A grey picture of 0 and its largest
    value (255 or 65535) has one label, with a notice, unless a label or ``ignore_value`` has that value. If
    ``coding`` has colours, pictures in colour and with a palette are read by them.

    Args:
        path: The file.
        labels: The meaning of the values.
        grid: The scan's grid. A picture has no position or size of its own, so that a mask with as many
            columns and rows as the scan, seen as a picture, lies on the scan's grid.
        coding: Colours and unknown pixels.

    Raises:
        InputRefused: compressed with loss (``lossy-mask``), in colour without a table (``colour-mask``), a
            colour that the table lacks (``unknown-colour``), partly transparent (``alpha``), or as
            :func:`medseg.io.picture.reader.decode`.
        UsageError: the table does not fit the labels (``colours``).
    """
    raster = decode(path)
    with refusing(path, "mask"):
        if raster.lossy:
            raise InputRefused(
                "the mask is compressed with loss (JPEG), which changes label values and smears edges",
                where=path,
                remedy="export it again as PNG or TIFF",
                reason="lossy-mask",
            )
        values = whole_numbers(_values(raster, path, labels, coding), path)
        own = grid_of(values)
        array = values.T[..., None]
        placed = own if grid is None or not _is_seen_as(own, grid) else grid
        return Mask(array, placed, tuple(labels), Source(path=path, format=PICTURE, modality=PICTURE))


def _values(raster: Raster, path: Path, labels: Sequence[Label], coding: MaskCoding) -> Voxels:
    """Label values (rows, columns)."""
    table = colours.colour_table(coding.colours, labels, coding.ignore_value) if coding.colours else {}
    if raster.kind == "palette":
        return colours.mapped(raster.colours, table) if table else raster.samples
    check_alpha(raster, path)
    samples = raster.samples
    if raster.kind == "colour":
        if table:
            if samples.dtype != np.uint8 or samples.shape[-1] != 3:
                raise _colour_mask(f"{samples.dtype}, {samples.shape[-1]} channels", "save it as 8-bit RGB")
            return colours.mapped(samples, table)
        if not is_grey(samples):
            raise _colour_mask(_examples(samples), "add to the recipe: colours: {label: '#rrggbb'}")
        samples = samples[..., 0]
    elif table and samples.dtype == np.uint8 and _greys(samples) <= set(table):
        return colours.mapped(np.repeat(samples[..., None], 3, -1), table)
    if raster.bits < 8:
        samples = samples // (255 // ((1 << raster.bits) - 1))
    return _binary(samples, path, labels, coding.ignore_value)


def _greys(samples: Voxels) -> set[int]:
    """The grey values of uint8 samples as colours 0xrrggbb."""
    return {int(value) * 0x10101 for value in np.unique(samples)}


def _binary(samples: Voxels, path: Path, labels: Sequence[Label], ignore_value: int | None) -> Voxels:
    """The values, 0 and 1 instead of 0 and the largest number of the type."""
    if samples.dtype not in (np.dtype(np.uint8), np.dtype(np.uint16)):
        return samples
    top = int(np.iinfo(samples.dtype).max)
    meant = {value for label in labels for value in label.values} | {ignore_value}
    if top in meant or not (samples == top).any() or ((samples != 0) & (samples != top)).any():
        return samples
    value = labels[0].value if len(labels) == 1 else 1
    notify("binary-mask", f"the mask has the values 0 and {top}: {top} was read as label {value}", path=path)
    return np.where(samples == top, np.uint16(value), np.uint16(0))


def _is_seen_as(picture: Grid, scan: Grid) -> bool:
    """Whether a scan's grid differs from a picture's in pixel size and position alone."""
    scaled = scan.affine[:3, :3] / np.asarray(scan.spacing_mm)
    return scan.shape == picture.shape and np.allclose(scaled, picture.affine[:3, :3], atol=1e-4)


def _examples(samples: Voxels) -> str:
    if samples.dtype != np.uint8 or samples.shape[-1] != 3:
        return f"{samples.shape[-1]} channels of {samples.dtype}"
    seen, counts = np.unique(colours.packed(samples), return_counts=True)
    order = np.argsort(-counts)[:4]
    return f"{len(seen)} colours such as " + ", ".join(f"#{int(seen[n]):06x}" for n in order)


def _colour_mask(found: str, remedy: str) -> InputRefused:
    return InputRefused(
        f"the mask is in colour ({found}), and no table says which label each colour is",
        remedy=remedy,
        reason="colour-mask",
    )
