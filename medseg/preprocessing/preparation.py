"""From a scan to the network's input, as arrays: the one definition for training and inference.

No other module changes intensities or voxels before the network, except for the augmentation.
:mod:`medseg.preprocessing.transforms` has the same steps as MONAI transforms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from medseg.errors import InputRefused, ResourceError
from medseg.images.channel_grids import on_first_grid
from medseg.images.grid import Grid
from medseg.images.mask_placement import placed_on
from medseg.images.volume import Mask, Volume, Voxels
from medseg.preprocessing.label_classes import UNKNOWN, LabelClasses
from medseg.preprocessing.label_resampling import channel_regions, regions, resample_labels
from medseg.preprocessing.resampling import resample, resampled_grid
from medseg.recipe import Crop, Intensity, Percentile, Recipe, ValueRange, Window
from medseg.system import memory_budget

__all__ = ["UNKNOWN", "Array", "CaseArrays", "Prepared", "Step", "prepare", "steps"]

Array = npt.NDArray[np.float32]

CaseArrays: TypeAlias = Mapping[str, npt.NDArray[Any]]
"""The arrays (C, X, Y, Z) of a case by name: ``image``, and for training ``label`` and ``unknown``.

A step that has to change labels gets them as channels, one per label.
"""


@dataclass(frozen=True)
class Prepared:
    """A case as the network sees it.

    Attributes:
        image: float32 (C, X, Y, Z), normalised.
        grid: Grid of the image; its axes are parallel to those of the scan.
        classes: The labels, one integer per voxel. None without a truth.
    """

    image: Array
    grid: Grid
    classes: LabelClasses | None = None

    @property
    def label(self) -> npt.NDArray[np.int8] | None:
        """The labels as channels, int8 (L, X, Y, Z), in the recipe's order; None without a truth.

        1 is inside, 0 outside, and -1 unknown (the recipe's ``ignore_value``).
        """
        return None if self.classes is None else self.classes.channels()


class Step(Protocol):
    """One step of the preparation."""

    def __call__(self, case: CaseArrays, grid: Grid) -> tuple[CaseArrays, Grid]:
        """The arrays after this step, and their grid; those of ``case`` may be overwritten."""
        ...


@dataclass(frozen=True)
class Resample:
    """Resamples to ``spacing_mm`` along ``axcodes`` over the same field of view, linear and anti-aliased.

    One step for both needs no reoriented copy of the scan. See :mod:`medseg.preprocessing.resampling`, and
    :func:`medseg.preprocessing.label_resampling.resample_labels` for labels.
    """

    axcodes: str
    spacing_mm: tuple[float, float, float]
    exclusive: bool = False

    def __call__(self, case: CaseArrays, grid: Grid) -> tuple[CaseArrays, Grid]:
        """The case with each array float32 (C, X, Y, Z) on the new grid."""
        target = self.target(grid)
        moved = {name: resample(values, grid, target) for name, values in case.items() if name != "label"}
        if "label" in case:
            labels = channel_regions(case["label"])
            classes = resample_labels(labels, grid, target, exclusive=self.exclusive)
            moved["label"] = classes.channels().astype(np.float32)
        if "unknown" in moved:
            # A voxel that is unknown in any part is unknown.
            moved["unknown"] = (moved["unknown"] > 0).astype(np.float32)
        return moved, target

    def target(self, grid: Grid) -> Grid:
        """The new grid of a case on ``grid``."""
        return resampled_grid(grid.oriented(self.axcodes), self.spacing_mm)


@dataclass(frozen=True)
class CropForeground:
    """Crops to the box of all voxels above a value in any channel, with a margin, within the scan.

    A scan without any foreground is kept whole instead of becoming empty.
    """

    above: float
    margin_voxels: tuple[int, int, int]

    def __call__(self, case: CaseArrays, grid: Grid) -> tuple[CaseArrays, Grid]:
        """The case with each array cropped, and contiguous."""
        inside: npt.NDArray[np.bool_] = np.any(case["image"] > self.above, axis=0)
        box = []
        for axis, margin in enumerate(self.margin_voxels):
            others = tuple(other for other in range(3) if other != axis)
            found = np.flatnonzero(np.any(inside, axis=others))
            if not len(found):
                return case, grid
            box.append(slice(max(0, int(found[0]) - margin), int(found[-1]) + 1 + margin))
        cropped = {name: np.ascontiguousarray(values[:, *box]) for name, values in case.items()}
        x, y, z = cropped["image"].shape[1:]
        affine = grid.affine.copy()
        affine[:3, 3] = grid.world([each.start for each in box])
        return cropped, Grid((x, y, z), affine)


@dataclass(frozen=True)
class Normalise:
    """Normalises the intensities of the image, each channel for itself.

    A window maps its HU to 0..1, or clips to them and makes z-scores with its own mean and standard
    deviation. A range maps its values to 0..1, and percentiles those of the voxels, all clipped. A
    z-score has mean 0 and standard deviation 1, over all voxels or those that are not 0; the others then
    remain 0.
    """

    intensity: Intensity

    def __call__(self, case: CaseArrays, grid: Grid) -> tuple[CaseArrays, Grid]:
        """The case with its image, float32 (C, X, Y, Z), changed in place: a copy would need memory."""
        for channel in case["image"]:
            if isinstance(self.intensity, Window) and self.intensity.sd_hu is not None:
                np.clip(channel, self.intensity.low_hu, self.intensity.high_hu, out=channel)
                channel -= self.intensity.mean_hu
                channel /= self.intensity.sd_hu
            elif isinstance(self.intensity, Window):
                _scale(channel, self.intensity.low_hu, self.intensity.high_hu)
            elif isinstance(self.intensity, ValueRange):
                _scale(channel, self.intensity.low, self.intensity.high)
            elif isinstance(self.intensity, Percentile):
                low, high = np.percentile(channel, (self.intensity.low, self.intensity.high))
                _scale(channel, float(low), float(high))
            else:
                _standardise(channel, nonzero=self.intensity.nonzero)
        return case, grid


def _scale(values: Array, low: float, high: float) -> None:
    """Maps ``low..high`` to 0..1, clipped, in place; if both are equal, only ``low`` is subtracted."""
    values -= low
    if high > low:
        values /= high - low
        np.clip(values, 0, 1, out=values)


def _standardise(values: Array, *, nonzero: bool) -> None:
    """Subtracts the mean and divides by the standard deviation, in place; a constant is only shifted."""
    chosen: npt.NDArray[np.bool_] = values != 0 if nonzero else np.ones((len(values), 1, 1), dtype=np.bool_)
    count = int(np.count_nonzero(chosen)) if nonzero else values.size
    if count == 0:
        return
    # In double precision, a plane at a time: exact enough in any order, without a copy of the scan.
    mean = sum(float(plane.sum(dtype=np.float64)) for plane in values) / count
    squares = 0.0
    for number, plane in enumerate(values):
        part = plane[chosen[number]] if nonzero else plane
        squares += float(np.square(part - mean, dtype=np.float64).sum())
    deviation = (squares / count) ** 0.5 or 1.0
    np.subtract(values, np.float32(mean), out=values, where=chosen)
    np.divide(values, np.float32(deviation), out=values, where=chosen)


def steps(recipe: Recipe) -> tuple[Step, ...]:
    """The steps of the preparation, in order."""
    rules = recipe.prepare
    crop: tuple[Step, ...] = () if rules.crop is None else (_crop(rules.crop, rules.spacing_mm),)
    return (_resampling(recipe), *crop, Normalise(rules.intensity))


def _resampling(recipe: Recipe) -> Resample:
    return Resample(recipe.prepare.orientation, recipe.prepare.spacing_mm, recipe.exclusive)


def _crop(crop: Crop, spacing_mm: tuple[float, float, float]) -> CropForeground:
    x, y, z = (round(crop.margin_mm / mm) for mm in spacing_mm)
    return CropForeground(crop.above, (x, y, z))


def prepare(recipe: Recipe, volumes: Sequence[Volume], truth: Mask | None = None) -> Prepared:
    """The prepared image, and label, of a case.

    Args:
        recipe: Defines the preparation.
        volumes: One per channel of the recipe, all on the same grid.
        truth: Label map on the same grid, for training; its axes may be stored in another order.

    Raises:
        InputRefused: the number of channels differs from the recipe's (``channel-count``), or a channel
            or the truth is not on the grid of the first channel (``grid-mismatch``).
        ResourceError: the prepared scan does not fit into memory (``memory``).
    """
    volumes = check_channels(recipe, volumes)
    scan_grid = volumes[0].grid
    _check_memory(recipe, scan_grid, len(volumes) + (truth is not None))
    case: dict[str, npt.NDArray[Any]] = {"image": _channels([volume.array for volume in volumes])}
    if truth is not None:
        truth = placed_on(truth, scan_grid, names=("truth", "scan"))
        if recipe.ignore_value is not None:
            case["unknown"] = (truth.array == recipe.ignore_value)[None]
    moved, grid = _resampling(recipe)(case, scan_grid)
    table = None
    if truth is not None:
        labels = regions(truth.array, recipe.labels)
        classes = resample_labels(labels, scan_grid, grid, exclusive=recipe.exclusive)
        moved, table = {**moved, "label": classes.classes[None]}, classes.table
    for step in steps(recipe)[1:]:
        moved, grid = step(moved, grid)
    image = np.ascontiguousarray(moved["image"])
    if table is None:
        return Prepared(image, grid)
    found = LabelClasses(moved["label"][0], table)
    if "unknown" in moved:
        found.classes[(moved["unknown"] > 0)[0]] = found.unknown_class
    return Prepared(image, grid, found)


def check_channels(recipe: Recipe, volumes: Sequence[Volume]) -> tuple[Volume, ...]:
    """The channels of a case, all on one grid; see :func:`medseg.images.channel_grids.on_first_grid`.

    Raises:
        InputRefused: the number of channels differs from the recipe's (``channel-count``), or a channel is
            not on the grid of the first one (``grid-mismatch``).
    """
    if len(volumes) != len(recipe.channels):
        raise InputRefused(
            f"{len(volumes)} channel(s) given, but the recipe has {len(recipe.channels)}: "
            + ", ".join(recipe.channels),
            reason="channel-count",
            remedy="give one scan for each channel, in this order",
        )
    return on_first_grid(volumes)


def _channels(arrays: Sequence[Voxels]) -> npt.NDArray[Any]:
    """An array (C, X, Y, Z); a single one is not copied."""
    if len(arrays) == 1:
        return arrays[0][None]
    same = len({array.dtype for array in arrays}) == 1
    return np.stack(arrays if same else [array.astype(np.float32) for array in arrays])


def _check_memory(recipe: Recipe, grid: Grid, channels: int) -> None:
    """Refuses a scan that is too large before anything is allocated."""
    spacing = recipe.prepare.spacing_mm
    shape = resampled_grid(grid.oriented(recipe.prepare.orientation), spacing).shape
    needed = 8 * channels * prod(shape)  # float32, and a cropped copy
    free = memory_budget.available_bytes()
    if free is not None and needed > free:
        raise ResourceError(
            f"at {' x '.join(f'{mm:g}' for mm in spacing)} mm the scan has {' x '.join(map(str, shape))} "
            f"voxels: {needed / 2**30:.1f} GiB are needed, {free / 2**30:.1f} GiB are free",
            remedy="use a machine with more memory, a cropped scan, or a model with larger voxels",
            reason="memory",
        )
