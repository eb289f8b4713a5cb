"""Facts: the small part of what a case holds that is enough to judge it and to compare it with others.

They are independent of the case's name and of the recipe's labels, so that they can be kept
beside a prepared case, which is found again by its content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import prod

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from medseg.images.grid import Grid
from medseg.images.value_counts import value_counts
from medseg.images.volume import Mask, Volume, Voxels

_AT_ONCE = 1 << 20
# One bin for each HU; scanners store 12 bits, some bone and metal reconstructions 16: those are clipped.
_LOWEST, _HIGHEST = -4096, 4095
# Air is -1000 HU. What lies far below is no tissue but the filling outside of a round field of
# view: -2000 and -2048 (GE, Philips), -3024 (Siemens), -32768.
_PADDING_HU = -1500


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Place(_Value):
    """A :class:`Grid` as plain numbers."""

    shape: tuple[int, int, int]
    affine: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, grid: Grid) -> Place:
        """The numbers of a grid."""
        return cls(shape=grid.shape, affine=tuple(tuple(row) for row in grid.affine.tolist()))

    @property
    def grid(self) -> Grid:
        """The grid of the numbers."""
        return Grid(self.shape, np.array(self.affine))


class Hounsfield(_Value):
    """Intensities read as HU; tells nothing about other units.

    Shares are of the voxels that are not padding (below -1500), of which percentiles are too.

    Attributes:
        low: 1st percentile, to 1 HU; in a scan with air around the patient that is air.
        soft: Share in -200..300: fat, water and soft tissue.
        none: Share in -900..-100. A scan that is 1000 or 1024 too high has nothing there: it
            would be thinner than air.
        dense: Share in 850..1250. In a scan that is 1000 or 1024 too high that is soft tissue.
    """

    low: float
    soft: float
    none: float
    dense: float


class Channel(_Value):
    """One scan of a case.

    Attributes:
        place: Its grid.
        modality: DICOM modality; None where the format has none.
        digest: SHA-256 of the voxels as float32 in RAS order: the same for the same voxels in
            another format, number type or order of axes. The affine is no part of it.
        minimum: Of all voxels.
        maximum: Of all voxels.
        hu: See :class:`Hounsfield`.
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


class Facts(_Value):
    """What is known about one case; ``model_dump_json`` and ``model_validate_json`` keep it in a file.

    Attributes:
        channels: In the order of the recipe; empty where no scan could be read.
        truth: The label map's own grid; None without one.
        values: Each integer in the label map with its number of voxels, ascending, 0 included.
    """

    channels: tuple[Channel, ...] = ()
    truth: Place | None = None
    values: tuple[tuple[int, int], ...] = ()

    def voxels(self, values: Sequence[int]) -> int:
        """How many voxels of the label map have one of these values."""
        return sum(count for value, count in self.values if value in values)


def measure(volumes: Sequence[Volume], truth: Mask | None) -> Facts:
    """The facts of a case that has been read: one pass over each array, some megabytes at a time.

    Args:
        volumes: The scans, one a channel.
        truth: The label map, on any grid.
    """
    return Facts(
        channels=tuple(_channel(volume) for volume in volumes),
        truth=None if truth is None else Place.of(truth.grid),
        values=() if truth is None else _values(truth.array),
    )


def _channel(volume: Volume) -> Channel:
    array = volume.oriented("RAS").array
    total = hashlib.sha256(repr(array.shape).encode())
    counts = np.zeros(_HIGHEST - _LOWEST + 1, np.int64)
    low, high = float("inf"), float("-inf")
    step = max(1, _AT_ONCE // prod(array.shape[:2]))
    for start in range(0, array.shape[2], step):
        # Adding 0 makes -0.0 plain zero, which is the same intensity.
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

    # The first value that at least a hundredth of the voxels do not exceed.
    low = _PADDING_HU + int(np.searchsorted(below, 0.01 * known))
    return Hounsfield(low=low, soft=share(-200, 300), none=share(-900, -100), dense=share(850, 1250))


def _values(array: Voxels) -> tuple[tuple[int, int], ...]:
    counts = value_counts(array)
    return tuple((int(value), int(counts[value])) for value in np.flatnonzero(counts))
