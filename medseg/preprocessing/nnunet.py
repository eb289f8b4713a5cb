"""From a scan to the input of an nnU-Net, in the order and with the rounding of nnU-Net v2.

The stored array is transposed, cropped to the box of its non-zero voxels, normalised, and resampled with
splines (``DefaultPreprocessor.run_case_npy`` of nnU-Net 2.8). Between two steps only views are passed on, and
normalisation happens a few slices at a time where it needs no statistics of the scan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from medseg.errors import InputRefused, ResourceError
from medseg.images.connected_components import filled
from medseg.images.grid import Grid
from medseg.images.run_length import Runs
from medseg.images.volume import Volume
from medseg.preprocessing.spline_resizing import resized, resized_labels, separate_axis
from medseg.recipe.pipeline import ChannelCT, ChannelRescaled, ChannelRGB, ChannelZScore, Configuration
from medseg.system import memory_budget

Voxels: TypeAlias = npt.NDArray[Any]
Floats: TypeAlias = npt.NDArray[np.float32]
_LEAST_SD = 1e-8


@dataclass(frozen=True)
class Frame:
    """Where the input of a network lies in a scan; axes are the network's.

    Attributes:
        axes: The scan's axis (X, Y, Z: 0, 1, 2) along each axis.
        flipped: Whether each axis runs against the scan's.
        box: The non-zero part of the scan.
        shape: Voxels of the network's input.
        stored_mm: Voxel size of the scan.
        input_mm: Voxel size of the network's input.
    """

    axes: tuple[int, int, int]
    flipped: tuple[bool, bool, bool]
    box: tuple[slice, slice, slice]
    shape: tuple[int, int, int]
    stored_mm: tuple[float, float, float]
    input_mm: tuple[float, float, float]

    def view(self, array: Voxels) -> Voxels:
        """An array (X, Y, Z) of the scan with the network's axes; writing to it writes to the array."""
        a, b, c = (slice(None, None, -1 if flipped else 1) for flipped in self.flipped)
        return array.transpose(self.axes)[a, b, c]

    @property
    def cropped(self) -> tuple[int, int, int]:
        """Number of voxels of the box."""
        a, b, c = (each.stop - each.start for each in self.box)
        return a, b, c


def frame(volumes: Sequence[Volume], rules: Configuration, *, orientation: str = "stored") -> Frame:
    """The frame of a scan.

    Args:
        volumes: The channels of the scan, on one grid.
        rules: The configuration.
        orientation: ``stored``, or ``RAS`` to turn the scan to its closest canonical axes first.
    """
    grid = volumes[0].grid
    order, flips = ((0, 1, 2), (False, False, False)) if orientation == "stored" else grid.moves_to("RAS")
    # SimpleITK's arrays are (z, y, x); nnU-Net then applies `transpose_forward`.
    moved = [2 - axis for axis in rules.transpose]
    a, b, c = (order[axis] for axis in moved)
    flipped = (flips[moved[0]], flips[moved[1]], flips[moved[2]])
    whole = Frame(
        (a, b, c), flipped, _everything(grid, (a, b, c)), (1, 1, 1), *_spacings(grid, (a, b, c), rules)
    )
    box = nonzero_box([whole.view(np.asarray(volume.array)) for volume in volumes])
    size = [each.stop - each.start for each in box]
    new = [round(old / to * n) for old, to, n in zip(whole.stored_mm, whole.input_mm, size, strict=True)]
    if min(new) < 1:
        raise InputRefused(
            f"at {' x '.join(f'{mm:g}' for mm in whole.input_mm)} mm the scan has "
            f"{' x '.join(map(str, new))} voxels",
            where=volumes[0].source.path,
            remedy="give a scan with more slices, or check its voxel size",
            reason="too-thin",
        )
    return Frame((a, b, c), flipped, box, (new[0], new[1], new[2]), whole.stored_mm, whole.input_mm)


def network_input(volumes: Sequence[Volume], rules: Configuration, place: Frame) -> Floats:
    """The prepared scan, float32 (C, A, B, C), contiguous.

    Args:
        volumes: The channels of the scan, on one grid.
        rules: The configuration.
        place: Their :func:`frame`.

    Raises:
        InputRefused: a channel of colours has values outside 0..255 (``not-rgb``).
        ResourceError: the prepared scan does not fit into memory (``memory``).
    """
    _check_memory(len(volumes), place)
    arrays = [place.view(np.asarray(volume.array)) for volume in volumes]
    made = np.empty((len(volumes), *place.shape), dtype=np.float32)
    for number, (array, volume) in enumerate(zip(arrays, volumes, strict=True)):
        image, prepare = _normalised(array, arrays, rules.intensity[number], place, volume)
        made[number] = _resampled(image, prepare, rules, place)
    return made


def previous_labels(labels: Voxels, outside: Voxels, rules: Configuration, place: Frame) -> Voxels:
    """The mask of a cascade's previous configuration on the grid of this one's input: integers (A, B, C).

    Voxels outside the non-zero mask are -1, as in nnU-Net.

    Args:
        labels: Label map (X, Y, Z) of the scan.
        outside: bool, the voxels outside the non-zero mask within the frame's box, see :func:`nonzero_mask`.
        rules: The configuration.
        place: The scan's frame.
    """
    cropped = np.array(place.view(labels)[place.box], dtype=np.int32)
    cropped[outside & (cropped == 0)] = -1
    if cropped.shape == place.shape:
        return cropped
    return resized_labels(cropped, place.shape, separate=separate_axis(place.stored_mm, place.input_mm))


def nonzero_mask(volumes: Sequence[Volume], place: Frame) -> npt.NDArray[np.bool_]:
    """The non-zero voxels of any channel within the frame's box, holes filled: bool (A, B, C)."""
    return _filled([place.view(np.asarray(volume.array)) for volume in volumes], place)


def oriented_view(array: Voxels, grid: Grid, axcodes: str) -> Voxels:
    """An array on a grid with its axes turned to ``axcodes``; writing to it writes to the array."""
    order, flips = grid.moves_to(axcodes)
    x, y, z = (slice(None, None, -1 if flipped else 1) for flipped in flips)
    view: Voxels = array.transpose(order)[x, y, z]
    return view


def _everything(grid: Grid, axes: Sequence[int]) -> tuple[slice, slice, slice]:
    a, b, c = (slice(0, grid.shape[axis]) for axis in axes)
    return a, b, c


def _spacings(
    grid: Grid, axes: Sequence[int], rules: Configuration
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    stored = tuple(grid.spacing_mm[axis] for axis in axes)
    wanted = rules.spacing_mm if len(rules.spacing_mm) == 3 else (stored[0], *rules.spacing_mm)
    return (stored[0], stored[1], stored[2]), (wanted[0], wanted[1], wanted[2])


def nonzero_box(arrays: Sequence[Voxels]) -> tuple[slice, slice, slice]:
    """The box of voxels that are not 0 in any channel; the whole scan if there are none."""
    shape = arrays[0].shape
    there = [np.zeros(n, dtype=np.bool_) for n in shape]
    for array in arrays:
        # Along the slowest axis in memory, so that a plane is contiguous.
        slow = int(np.argmax(np.abs(array.strides)))
        b, c = (axis for axis in range(3) if axis != slow)
        for number, plane in enumerate(np.moveaxis(array, slow, 0)):
            inside = plane != 0
            rows = inside.any(axis=1)
            if rows.any():
                there[slow][number] = True
                there[b] |= rows
                there[c] |= inside.any(axis=0)
    found = [np.flatnonzero(each) for each in there]
    if not len(found[0]):
        a, b_all, c_all = (slice(0, n) for n in shape)
        return a, b_all, c_all
    first, second, third = (slice(int(each[0]), int(each[-1]) + 1) for each in found)
    return first, second, third


def _normalised(
    array: Voxels, arrays: Sequence[Voxels], rule: object, place: Frame, volume: Volume
) -> tuple[Voxels, Callable[[Voxels], Floats]]:
    """The cropped channel, and the rest of its normalisation, which works on any part of it."""
    image = array[place.box]
    if isinstance(rule, ChannelCT):
        return image, lambda part: _ct(part, rule)
    if isinstance(rule, ChannelZScore):
        # As nnU-Net's array lies in memory: the sums of its mean and deviation depend on it.
        plain = np.ascontiguousarray(array.transpose(np.argsort(_stored_order(place))), dtype=np.float32)
        image = plain.transpose(_stored_order(place))[place.box]
        inside = _filled(arrays, place) if rule.inside else None
        _standardise(image, inside)
        return image, _single
    if isinstance(rule, ChannelRescaled):
        low, high = (np.float32(each) for each in (image.min(), image.max()))
        scale = max(float(high - low), _LEAST_SD)
        return image, lambda part: (_single(part) - low) / np.float32(scale)
    if isinstance(rule, ChannelRGB):
        if image.min() < 0 or image.max() > 255:
            raise InputRefused(
                f"colours must be in 0..255, but values are {image.min():g}..{image.max():g}",
                where=volume.source.path,
                remedy="give an 8-bit image, or another model",
                reason="not-rgb",
            )
        return image, lambda part: _single(part) / np.float32(255.0)
    return image, _single


def _stored_order(place: Frame) -> tuple[int, int, int]:
    """The axis of the array as SimpleITK gives it, (z, y, x), along each axis of the network."""
    a, b, c = (2 - axis for axis in place.axes)
    return a, b, c


def _single(part: Voxels) -> Floats:
    return np.asarray(part, dtype=np.float32)


def _ct(part: Voxels, rule: ChannelCT) -> Floats:
    values = part.astype(np.float32)
    np.clip(values, rule.low_hu, rule.high_hu, out=values)
    values -= rule.mean_hu
    values /= max(rule.sd_hu, _LEAST_SD)
    return values


def _standardise(image: Floats, inside: npt.NDArray[np.bool_] | None) -> None:
    """Mean 0 and standard deviation 1, in place, with numpy's own sums in single precision."""
    if inside is None:
        mean, deviation = image.mean(), image.std()
        image -= mean
        image /= max(deviation, _LEAST_SD)
        return
    chosen = image[inside]
    image[inside] = (chosen - chosen.mean()) / max(chosen.std(), _LEAST_SD)


def _filled(arrays: Sequence[Voxels], place: Frame) -> npt.NDArray[np.bool_]:
    """The non-zero mask in the box, holes filled: background that no face-connected way leads out of."""
    mask = np.zeros(place.cropped, dtype=np.bool_)
    for array in arrays:
        mask |= array[place.box] != 0
    return filled(Runs.of(mask)).binary()


def _resampled(
    image: Voxels, prepare: Callable[[Voxels], Floats], rules: Configuration, place: Frame
) -> Floats:
    if image.shape == place.shape:
        return prepare(image)
    return resized(
        image,
        place.shape,
        order=rules.order,
        separate=separate_axis(place.stored_mm, place.input_mm),
        order_z=rules.order_z,
        prepare=prepare,
    )


def _check_memory(channels: int, place: Frame) -> None:
    """Refuses a scan that is too large before anything is allocated."""
    needed = 4 * channels * prod(place.shape)
    free = memory_budget.available_bytes()
    if free is not None and needed > free:
        raise ResourceError(
            f"at {' x '.join(f'{mm:g}' for mm in place.input_mm)} mm the scan has "
            f"{' x '.join(map(str, place.shape))} voxels: {needed / 2**30:.1f} GiB are needed, "
            f"{free / 2**30:.1f} GiB are free",
            remedy="use a machine with more memory, a cropped scan, or a model with larger voxels",
            reason="memory",
        )
