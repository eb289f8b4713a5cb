"""Facts: the few measurements of a case that suffice to check it and to compare it with others.

They depend neither on the case's name nor on the recipe's labels, so that they can be cached
with a prepared case, which is identified by its content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import prod

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from medseg.datasets.validation.resampling_loss import remains
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.value_counts import value_counts
from medseg.images.volume import Mask, Volume, Voxels
from medseg.recipe import Recipe

_AT_ONCE = 1 << 20
# One bin per HU. Scanners store 12 bits; the 16 bits of some bone and metal reconstructions are clipped.
_LOWEST, _HIGHEST = -4096, 4095
# Air is -1000 HU. Values far below are padding outside a round field of view:
# -2000 and -2048 (GE, Philips), -3024 (Siemens), -32768.
_PADDING_HU = -1500


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Place(_Value):
    """A :class:`Grid` as plain numbers."""

    shape: tuple[int, int, int]
    affine: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, grid: Grid) -> Place:
        """A grid as plain numbers."""
        return cls(shape=grid.shape, affine=tuple(tuple(row) for row in grid.affine.tolist()))

    @property
    def grid(self) -> Grid:
        """The grid with these numbers."""
        return Grid(self.shape, np.array(self.affine))


class Hounsfield(_Value):
    """Statistics of intensities interpreted as HU; meaningless for other units.

    Padding (below -1500) is excluded from all fractions and percentiles.

    Attributes:
        low: 1st percentile, rounded to 1 HU; air, if the scan has air around the patient.
        soft: Fraction of voxels in -200..300: fat, water and soft tissue.
        none: Fraction of voxels in -900..-100; 0 in a scan that is 1000 or 1024 too high, where
            it would be thinner than air.
        dense: Fraction of voxels in 850..1250, which is soft tissue in a scan that is 1000 or 1024
            too high.
    """

    low: float
    soft: float
    none: float
    dense: float


class Channel(_Value):
    """One scan of a case.

    Attributes:
        place: Grid of the scan.
        modality: DICOM modality; None if the format has none.
        digest: SHA-256 of the voxels as float32 in RAS order, which is independent of the format,
            data type and order of axes. It does not include the affine.
        minimum: Minimum of all voxels.
        maximum: Maximum of all voxels.
        hu: Statistics of intensities in HU, see :class:`Hounsfield`.
    """

    place: Place
    modality: str | None
    digest: str
    minimum: float
    maximum: float
    hu: Hounsfield

    @property
    def constant(self) -> bool:
        """Whether all voxels have one value."""
        return self.minimum == self.maximum


class Kept(_Value):
    """How much of a label is left after the preparation of a recipe.

    Attributes:
        values: The values of the label.
        spacing_mm: Voxel size of the prepared grid.
        voxels: Number of prepared voxels of the label.
        parts: Number of connected parts of the label before preparation; 0 in facts of earlier versions.
        lost: Number of these parts of which nothing is left.
    """

    values: tuple[int, ...]
    spacing_mm: tuple[float, float, float]
    voxels: int
    parts: int = 0
    lost: int = 0


class Facts(_Value):
    """Measurements of one case; ``model_dump_json`` and ``model_validate_json`` store it in a file.

    Attributes:
        channels: Channels in the order of the recipe; empty if a scan could not be read.
        truth: Grid of the label map; None without a label map.
        values: Each value in the label map with its number of voxels, ascending, including 0.
        kept: What a recipe's preparation leaves of labels; empty if measured without a recipe.
        read_as: How pictures were read, such as 0 and 255 as one label: the reason and text of notices
            that usually concern all cases alike.
    """

    channels: tuple[Channel, ...] = ()
    truth: Place | None = None
    values: tuple[tuple[int, int], ...] = ()
    kept: tuple[Kept, ...] = ()
    read_as: tuple[tuple[str, str], ...] = ()

    def voxels(self, values: Sequence[int]) -> int:
        """The number of voxels of the label map with any of these values."""
        return sum(count for value, count in self.values if value in values)

    def kept_of(self, label: Label, spacing_mm: tuple[float, float, float]) -> Kept | None:
        """What is left of a label at a voxel size; None if it was not measured."""
        wanted = (label.values, spacing_mm)
        return next((each for each in self.kept if (each.values, each.spacing_mm) == wanted), None)


def measure(volumes: Sequence[Volume], truth: Mask | None, recipe: Recipe | None = None) -> Facts:
    """The facts of a case, from one pass over each array in chunks of a few megabytes.

    Args:
        volumes: The scans, one per channel.
        truth: The label map, on any grid.
        recipe: If given, what its preparation leaves of its labels is measured as well.
    """
    return Facts(
        channels=tuple(_channel(volume) for volume in volumes),
        truth=None if truth is None else Place.of(truth.grid),
        values=() if truth is None else _values(truth.array),
        kept=() if truth is None or recipe is None else _kept(truth, recipe),
    )


def _kept(truth: Mask, recipe: Recipe) -> tuple[Kept, ...]:
    spacing = recipe.prepare.spacing_mm
    left_of_each = remains(truth, recipe.labels, spacing, exclusive=recipe.exclusive)
    return tuple(
        Kept(values=label.values, spacing_mm=spacing, voxels=left.voxels, parts=left.parts, lost=left.lost)
        for label, left in zip(recipe.labels, left_of_each, strict=True)
    )


def _channel(volume: Volume) -> Channel:
    array = volume.oriented("RAS").array
    total = hashlib.sha256(repr(array.shape).encode())
    counts = np.zeros(_HIGHEST - _LOWEST + 1, np.int64)
    low, high = float("inf"), float("-inf")
    step = max(1, _AT_ONCE // prod(array.shape[:2]))
    for start in range(0, array.shape[2], step):
        # Adding 0 turns -0.0 into 0.0, the same intensity.
        slab = np.add(array[:, :, start : start + step], np.float32(0), dtype=np.float32)
        total.update(slab.tobytes(order="F"))
        low, high = min(low, float(slab.min())), max(high, float(slab.max()))
        bins = np.rint(slab).clip(_LOWEST, _HIGHEST).astype(np.intp) - _LOWEST
        counts += np.bincount(bins.ravel(order="K"), minlength=counts.size)
    return Channel(
        place=Place.of(volume.grid),
        modality=volume.source.modality,
        digest=total.hexdigest(),
        minimum=low,
        maximum=high,
        hu=_hounsfield(counts),
    )


def _hounsfield(counts: npt.NDArray[np.int64]) -> Hounsfield:
    kept = counts[_PADDING_HU - _LOWEST :]
    below = np.cumsum(kept)
    known = max(int(below[-1]), 1)

    def share(low: int, high: int) -> float:
        return float(counts[low - _LOWEST : high - _LOWEST + 1].sum() / known)

    # The smallest value that at least 1 % of the voxels do not exceed.
    low = _PADDING_HU + int(np.searchsorted(below, 0.01 * known))
    return Hounsfield(low=low, soft=share(-200, 300), none=share(-900, -100), dense=share(850, 1250))


def _values(array: Voxels) -> tuple[tuple[int, int], ...]:
    counts = value_counts(array)
    return tuple((int(value), int(counts[value])) for value in np.flatnonzero(counts))
