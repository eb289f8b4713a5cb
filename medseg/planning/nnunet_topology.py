"""nnU-Net's rule for the resolutions of a network, and its estimate of the memory that it needs.

The rules are those of nnU-Net 2.8 (``nnunetv2.experiment_planning``, Isensee et al. 2021,
doi:10.1038/s41592-020-01008-z), written anew from their description.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Literal

Kind = Literal["plain_conv_unet", "residual_encoder_unet"]

_LEAST_SIDE = 4  # of a feature map
_ALIKE = 2  # spacings below this ratio count as equal
_FIRST_WIDTH = 32
_MOST_WIDTH = {2: 512, 3: 320}
_BLOCKS = (1, 3, 4, 6)


@dataclass(frozen=True)
class Topology:
    """The resolutions of a network.

    Attributes:
        patch_size: Size of the network's input, a multiple of ``divisors``.
        strides: Step of the first convolution at each resolution, one number per axis.
        kernels: Size of the convolutions at each resolution, one number per axis.
    """

    patch_size: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    kernels: tuple[tuple[int, ...], ...]

    @property
    def divisors(self) -> tuple[int, ...]:
        """For each axis, the product of its strides."""
        return tuple(prod(steps) for steps in zip(*self.strides, strict=True))

    @property
    def widths(self) -> tuple[int, ...]:
        """Number of feature maps at each resolution."""
        most = _MOST_WIDTH[len(self.patch_size)]
        return tuple(min(most, _FIRST_WIDTH * 2**level) for level in range(len(self.strides)))


def topology(spacing_mm: Sequence[float], size: Sequence[float]) -> Topology:
    """The resolutions for patches of a size, which is rounded up to what the network can take.

    Resolution is halved along the axes that are still long enough and whose voxels are not already twice as
    long as the shortest of these; a kernel is 1 along an axis until its voxels are about as short as others.

    Args:
        spacing_mm: Voxel size along each axis.
        size: Wanted number of voxels along each axis; it may be a median, such as 36.5.
    """
    axes = range(len(size))
    current, left = list(spacing_mm), list(size)
    kernel = [1] * len(size)
    strides, kernels = [(1,) * len(size)], []
    while halved := _halved(current, left):
        shortest = min(current)
        kernel = [3 if k == 3 or mm / shortest < _ALIKE else 1 for k, mm in zip(kernel, current, strict=True)]
        for axis in halved:
            current[axis] *= 2
            left[axis] = ceil(left[axis] / 2)
        strides.append(tuple(2 if axis in halved else 1 for axis in axes))
        kernels.append(tuple(kernel))
    kernels.append((3,) * len(size))
    divisors = [prod(steps) for steps in zip(*strides, strict=True)]
    patch = tuple(ceil(n / divisor) * divisor for n, divisor in zip(size, divisors, strict=True))
    return Topology(patch, tuple(strides), tuple(kernels))


def _halved(spacing_mm: Sequence[float], size: Sequence[float]) -> tuple[int, ...]:
    """The axes along which the next resolution is half as fine; none if this was the coarsest."""
    long_enough = [axis for axis, n in enumerate(size) if n >= 2 * _LEAST_SIDE]
    if not long_enough:
        return ()
    shortest = min(spacing_mm[axis] for axis in long_enough)
    alike = tuple(axis for axis in long_enough if spacing_mm[axis] / shortest < _ALIKE)
    if len(alike) == 1 and size[alike[0]] < 3 * _LEAST_SIDE:
        return ()
    return alike


def repeats(kind: Kind, stages: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Number of blocks or convolutions at each resolution of the encoder, and of the decoder."""
    if kind == "plain_conv_unet":
        return (2,) * stages, (2,) * (stages - 1)
    return (*_BLOCKS, *(_BLOCKS[-1],) * stages)[:stages], (1,) * (stages - 1)


def feature_map_elements(
    kind: Kind, planned: Topology, outputs: int, *, widths: Sequence[int] | None = None
) -> int:
    """The number of values in all feature maps of one patch, by which nnU-Net estimates memory.

    Args:
        kind: Kind of network.
        planned: Its resolutions.
        outputs: Number of output channels, with the background.
        widths: Number of feature maps at each resolution; None: nnU-Net's.
    """
    side, voxels = list(planned.patch_size), []
    for steps in planned.strides:
        side = [n // step for n, step in zip(side, steps, strict=True)]
        voxels.append(prod(side))
    widths = widths or planned.widths
    encoder, decoder = repeats(kind, len(widths))
    if kind == "plain_conv_unet":
        total = sum(count * f * v for count, f, v in zip(encoder, widths, voxels, strict=True))
    else:
        total = widths[0] * voxels[0]  # the stem
        for level, (count, f, v) in enumerate(zip(encoder, widths, voxels, strict=True)):
            # The skip connection has maps of its own where channels or resolution change.
            total += (2 * count + (level > 0)) * f * v
    # Coarsest first; the transposed convolution has maps of its own.
    for count, f, v in zip(decoder, widths[-2::-1], voxels[-2::-1], strict=True):
        total += (count + 1) * f * v
    return total + (outputs * voxels[0] if decoder else 0)
