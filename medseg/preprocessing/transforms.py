"""From a scan to the network's input: one MONAI `Compose` for training and inference.

No other module changes intensities or voxels before the network, except for the augmentation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.compose import Compose
from monai.transforms.croppad.dictionary import CropForegroundd
from monai.transforms.intensity.dictionary import (
    NormalizeIntensityd,
    ScaleIntensityRangePercentilesd,
)
from monai.transforms.transform import MapTransform

from medseg.errors import InputRefused, ResourceError
from medseg.images.grid import Grid
from medseg.images.volume import Mask, Volume, Voxels, members
from medseg.preprocessing.resampling import resample, resampled_grid
from medseg.recipe import Crop, Intensity, Percentile, Recipe, Window
from medseg.system import memory_budget
from medseg.system.quiet_libraries import quiet

# Types that torch computes with; all others are converted to float32.
_TORCH_TYPES = (np.dtype(np.bool_), np.dtype(np.uint8), np.dtype(np.int16), np.dtype(np.float32))

# Shares that differ by less are equal: interpolation in float32 rounds them.
_TIE = 1e-5

UNKNOWN = -1
"""Value of voxels in a prepared label for which it is unknown whether they belong to the label."""


@dataclass(frozen=True)
class Prepared:
    """A case as the network sees it.

    Attributes:
        image: float32 (C, X, Y, Z), normalised.
        grid: Grid of the image; its axes are parallel to those of the scan.
        label: int8 (L, X, Y, Z), one channel per label in the recipe's order: 1 inside, 0 outside,
            -1 unknown (the recipe's ``ignore_value``). None without a truth.
    """

    image: torch.Tensor
    grid: Grid
    label: torch.Tensor | None = None


class Resampled(MapTransform):  # type: ignore[misc]  # monai has no types
    """Resamples to ``spacing_mm`` along ``axcodes`` over the same field of view, linear and anti-aliased.

    MONAI's Spacingd samples without averaging, so that the noise of fine scans aliases into coarse grids,
    and needs 1.4 GB and 1.2 s for a 512x512x300 CT. Its Orientationd chooses the axes of an oblique scan by
    nibabel's rule, while the rest of this package uses that of :class:`Grid`. One step for both also needs
    no reoriented copy of the scan. See :mod:`medseg.preprocessing.resampling`. Labels, in 0..1, are
    interpolated as well. Labels that may overlap are thresholded at one half; of mutually exclusive
    labels and the background each voxel gets the one with the largest share, see :func:`largest_share`.
    """

    def __init__(
        self,
        keys: Sequence[str],
        axcodes: str,
        spacing_mm: tuple[float, float, float],
        *,
        exclusive: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.axcodes = axcodes
        self.spacing_mm = spacing_mm
        self.exclusive = exclusive

    def __call__(self, data: Mapping[str, MetaTensor]) -> dict[str, MetaTensor]:
        """The case with each tensor float32 (C, X, Y, Z) on the new grid."""
        moved = dict(data)
        for key in self.key_iterator(moved):
            grid = grid_of(moved[key])
            target = resampled_grid(grid.oriented(self.axcodes), self.spacing_mm)
            values = resample(moved[key].as_tensor(), grid, target)
            if key == "label" and self.exclusive:
                values = largest_share(values)
            elif key == "label":
                values = (values >= 0.5).to(torch.float32)
            elif key == "unknown":
                # A voxel that is unknown in any part is unknown.
                values = (values > 0).to(torch.float32)
            moved[key] = on_grid(values, target)
        return moved


class Windowed(MapTransform):  # type: ignore[misc]  # monai has no types
    """Maps a window of intensities to 0..1, clipped; MONAI's ScaleIntensityRanged, but in place.

    MONAI's transform holds the scan in memory three times. Changing the tensor is safe here, because the
    resampling before it has made a new one.
    """

    def __init__(self, keys: Sequence[str] | str, low: float, high: float) -> None:
        super().__init__(keys)
        self.low, self.high = low, high

    def __call__(self, data: Mapping[str, MetaTensor]) -> dict[str, MetaTensor]:
        """The case, with each float32 tensor (C, X, Y, Z) changed in place."""
        moved = dict(data)
        for key in self.key_iterator(moved):
            moved[key].as_tensor().sub_(self.low).div_(self.high - self.low).clamp_(0, 1)
        return moved


def largest_share(shares: torch.Tensor) -> torch.Tensor:
    """Mutually exclusive masks: each voxel gets the label, or the background, with the largest share.

    If several have the largest share, they take turns from voxel to voxel, as on a chessboard: a fixed
    choice would enlarge or shrink every structure whose surface lies in the middle of voxels.

    Args:
        shares: float32 (L, X, Y, Z), share of each label in each voxel, 0..1; the background has the rest.
            It is overwritten.

    Returns:
        float32 (L, X, Y, Z) of 0 and 1, at most one 1 per voxel.
    """
    count, *shape = shares.shape
    for x in range(shape[0]):  # a plane at a time, because of the memory
        plane = shares[:, x]
        classes = torch.cat([1 - plane.sum(0, keepdim=True), plane])
        tied = classes >= classes.amax(0) - _TIE
        y, z = torch.meshgrid(torch.arange(shape[1]), torch.arange(shape[2]), indexing="ij")
        turn = (x + y + z) % tied.sum(0)
        # The one of the tied classes whose turn it is.
        chosen = (tied & (tied.cumsum(0) == turn + 1)).to(torch.float32)
        shares[:, x] = chosen[1 : count + 1]
    return shares


def compose(recipe: Recipe) -> Compose:
    """The MONAI transform of a case ``{"image": ..., "label": ..., "unknown": ...}``.

    All values are `MetaTensor` (C, X, Y, Z) of any type, with the scan's affine. The last two are
    optional. See :func:`prepare`.
    """
    keys = ("image", "label", "unknown")
    steps: list[Any] = [
        Resampled(keys, recipe.prepare.orientation, recipe.prepare.spacing_mm, exclusive=recipe.exclusive)
    ]
    if recipe.prepare.crop:
        steps.append(_crop(recipe.prepare.crop, keys, recipe.prepare.spacing_mm))
    steps.append(_normalise(recipe.prepare.intensity))
    return Compose(steps)


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
    if len(volumes) != len(recipe.channels):
        raise InputRefused(
            f"{len(volumes)} channel(s) given, but the recipe has {len(recipe.channels)}: "
            + ", ".join(recipe.channels),
            reason="channel-count",
            remedy="give one scan for each channel, in this order",
        )
    grid = volumes[0].grid
    for number, volume in enumerate(volumes[1:], start=2):
        mismatch = volume.grid.mismatch(grid)
        if mismatch:
            raise InputRefused(
                f"channel {number} is not on the grid of the first channel: {mismatch}",
                where=volume.source.path,
                reason="grid-mismatch",
                remedy="register the channels and resample them to one grid first",
            )
    _check_memory(recipe, grid, len(volumes) + (len(recipe.labels) if truth is not None else 0))
    case = {"image": on_grid(_channels([v.array for v in volumes]), grid)}
    if truth is not None:
        truth = truth.oriented(grid.axcodes)
        mismatch = truth.grid.mismatch(grid)
        if mismatch:
            raise InputRefused(
                f"the truth is not on the scan's grid: {mismatch}",
                reason="grid-mismatch",
                remedy="resample the truth to the scan's grid",
            )
        case["label"] = on_grid(_channels([members(truth.array, label) for label in recipe.labels]), grid)
        if recipe.ignore_value is not None:
            case["unknown"] = on_grid(_channels([truth.array == recipe.ignore_value]), grid)
    done = compose(recipe)(case)
    label = done["label"].as_tensor().to(torch.int8).contiguous() if truth is not None else None
    if label is not None and "unknown" in done:
        label = label.masked_fill(done["unknown"].as_tensor() > 0, UNKNOWN)
    image = done["image"]
    return Prepared(image.as_tensor().to(torch.float32).contiguous(), grid_of(image), label)


def _channels(arrays: Sequence[Voxels]) -> torch.Tensor:
    """A tensor (C, X, Y, Z); a single array without reversed axes, of a suitable type, is not copied."""
    same = len({array.dtype for array in arrays}) == 1 and arrays[0].dtype in _TORCH_TYPES
    array = np.stack(arrays) if len(arrays) > 1 and same else arrays[0][None]
    if not same:
        array = np.stack([array.astype(np.float32) for array in arrays])
    if min(array.strides) < 0:
        array = array.copy()  # torch does not support negative strides
    with quiet():  # torch warns about read-only arrays; nothing is written to it
        return torch.from_numpy(array)


def _check_memory(recipe: Recipe, grid: Grid, channels: int) -> None:
    """Refuses a scan that is too large, before anything is allocated and outside MONAI's transforms."""
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


def on_grid(values: torch.Tensor, grid: Grid) -> MetaTensor:
    """``values`` (C, X, Y, Z) as a MONAI tensor with the affine of ``grid``."""
    return MetaTensor(values, affine=torch.from_numpy(grid.affine.copy()))


def grid_of(image: MetaTensor) -> Grid:
    """The grid of a MONAI tensor (C, X, Y, Z)."""
    x, y, z = image.shape[1:]
    return Grid((x, y, z), np.asarray(image.affine, dtype=np.float64))


def _crop(crop: Crop, keys: Sequence[str], spacing_mm: tuple[float, float, float]) -> CropForegroundd:
    def foreground(image: torch.Tensor) -> torch.Tensor:
        inside = image > crop.above
        # A scan without any foreground is kept whole instead of becoming empty.
        return inside if bool(inside.any()) else torch.ones_like(inside)

    margin = [round(crop.margin_mm / s) for s in spacing_mm]
    return CropForegroundd(
        keys, "image", select_fn=foreground, margin=margin, allow_smaller=True, allow_missing_keys=True
    )


def _normalise(intensity: Intensity) -> MapTransform:
    if isinstance(intensity, Window):
        return Windowed("image", intensity.low_hu, intensity.high_hu)
    if isinstance(intensity, Percentile):
        return ScaleIntensityRangePercentilesd(
            "image", intensity.low, intensity.high, 0.0, 1.0, clip=True, channel_wise=True
        )
    return NormalizeIntensityd("image", nonzero=intensity.nonzero, channel_wise=True)
