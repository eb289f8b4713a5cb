"""The input of a network of a MONAI bundle, and the way back to the scan.

Positions, order and rounding are those of ``Orientationd``, ``Spacingd``, ``ScaleIntensityRanged``,
``NormalizeIntensityd`` and ``Invertd`` of MONAI 1.5: the first voxel stays where it is, and the last one is
the nearest to the scan's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from medseg.images.grid import Grid
from medseg.images.volume import Volume
from medseg.preprocessing.nnunet import oriented_view
from medseg.recipe.bundle_pipeline import BundleIntensity, BundlePipeline, BundleRange

Floats: TypeAlias = npt.NDArray[np.float32]
Steps: TypeAlias = tuple[float, float, float]

_SAME = 1e-3
"""Steps that differ from one voxel by less leave an array of the same shape as it is (``AFFINE_TOL``)."""


def bundle_input(volumes: Sequence[Volume], rules: BundlePipeline) -> Floats:
    """The scan as the network sees it, float32 (C, X, Y, Z)."""
    grid = volumes[0].grid
    channels = [turned(np.asarray(volume.array), grid, rules) for volume in volumes]
    shape, steps = sampling(channels[0].shape, turned_spacing(grid, rules), rules)
    image = np.stack([resampled(np.asarray(each, dtype=np.float32), shape, steps) for each in channels])
    for rule in rules.intensity:
        _normalise(image, rule)
    return image


def turned(array: npt.NDArray[np.generic], grid: Grid, rules: BundlePipeline) -> npt.NDArray[np.generic]:
    """A view of an array on the scan's grid with the axes of the network's input."""
    return array if rules.orientation is None else oriented_view(array, grid, rules.orientation)


def turned_spacing(grid: Grid, rules: BundlePipeline) -> Steps:
    """The scan's voxel size along the axes of the network's input."""
    order = (0, 1, 2) if rules.orientation is None else grid.moves_to(rules.orientation)[0]
    x, y, z = (float(grid.spacing_mm[axis]) for axis in order)
    return x, y, z


def sampling(
    shape: Sequence[int], spacing_mm: Steps, rules: BundlePipeline
) -> tuple[tuple[int, int, int], Steps]:
    """Shape of the network's input, and its voxels' distance in voxels of the scan."""
    if rules.spacing_mm is None:
        x, y, z = shape
        return (x, y, z), (1.0, 1.0, 1.0)
    steps = [new / old for new, old in zip(rules.spacing_mm, spacing_mm, strict=True)]
    x, y, z = (int(np.round((n - 1) / step + 1)) for n, step in zip(shape, steps, strict=True))
    return (x, y, z), (steps[0], steps[1], steps[2])


def resampled(
    values: npt.NDArray[np.float32], shape: Sequence[int], steps: Sequence[float], *, nearest: bool = False
) -> Floats:
    """Values (X, Y, Z) at the positions 0, step, 2 step, ... of each axis, the border's beyond it."""
    if tuple(shape) == values.shape and all(abs(step - 1) <= _SAME for step in steps):
        return values
    places = [np.clip(np.arange(n) * step, 0, old - 1) for n, step, old in
              zip(shape, steps, values.shape, strict=True)]  # fmt: skip
    if nearest:
        return values[np.ix_(*(np.rint(each).astype(np.intp) for each in places))]
    found: npt.NDArray[np.floating] = values
    # The axis that shrinks most first: less work, and the same sums.
    for axis in sorted(range(3), key=lambda each: shape[each] / values.shape[each]):
        low = np.floor(places[axis]).astype(np.intp)
        share = (places[axis] - low).reshape([-1 if each == axis else 1 for each in range(3)])
        high = np.minimum(low + 1, values.shape[axis] - 1)
        found = found.take(low, axis) * (1 - share) + found.take(high, axis) * share
    return found.astype(np.float32)


def _normalise(image: Floats, rule: BundleIntensity) -> None:
    """Normalises (C, X, Y, Z) in place."""
    if isinstance(rule, BundleRange):
        image -= np.float32(rule.low)
        image /= np.float32(rule.high - rule.low)
        if rule.to_low is not None and rule.to_high is not None:
            image *= np.float32(rule.to_high - rule.to_low)
            image += np.float32(rule.to_low)
            if rule.clip:
                np.clip(image, rule.to_low, rule.to_high, out=image)
        return
    for part in image if rule.channel_wise else [image]:
        chosen = part != 0 if rule.nonzero else np.ones(part.shape, dtype=np.bool_)
        values = part[chosen]
        if values.size:
            deviation = float(values.std(dtype=np.float64)) or 1.0
            part[chosen] = (values - np.float32(values.mean(dtype=np.float64))) / np.float32(deviation)
