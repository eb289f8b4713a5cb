"""nnU-Net's planners: target spacing, patch, network and batch of its configurations.

Pure functions of a few numbers, equal to ``ExperimentPlanner`` and ``nnUNetPlannerResEncM``, ``L`` and ``XL``
of nnU-Net 2.8 (Isensee et al. 2021, doi:10.1038/s41592-020-01008-z; Isensee et al. 2024, arXiv:2404.09556).
Axes are in the order that the caller gives; nnU-Net's is slices, rows, columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medseg.planning.nnunet_topology import Kind, Topology, feature_map_elements, topology

Array = npt.NDArray[np.float64]

_ANISOTROPIC = 3
_FIRST_PATCH = {2: 2048**2, 3: 256**3}
_REFERENCE_BATCH = {2: 12, 3: 2}
_LEAST_BATCH = 2
_LOWRES_BELOW = 0.25  # of the median case, in a patch of the full resolution
_LOWRES_STEP = 1.03
_LOWRES_WORTH = 2  # times fewer voxels
_LOWRES_LONGER = 2


@dataclass(frozen=True)
class Planner:
    """A row of the table of planners.

    Attributes:
        kind: Kind of network.
        elements: Feature-map values that fit into ``memory_gb``, by number of spatial dimensions.
        memory_gb: Memory of the GPU that the planner is made for.
        covered: Largest share of all voxels of the data set in one batch.
    """

    kind: Kind
    elements: dict[int, float]
    memory_gb: float
    covered: float


PLANNERS: dict[str, Planner] = {
    "nnunet": Planner("plain_conv_unet", {3: 560e6, 2: 85e6}, 8, 0.05),
    "nnunet-resenc-m": Planner("residual_encoder_unet", {3: 680e6, 2: 135e6}, 8, 1),
    "nnunet-resenc-l": Planner("residual_encoder_unet", {3: 2100e6, 2: 380e6}, 24, 1),
    "nnunet-resenc-xl": Planner("residual_encoder_unet", {3: 3600e6, 2: 560e6}, 40, 1),
}
"""nnU-Net's planners by the names that ``medseg plan --like`` takes."""


@dataclass(frozen=True)
class Configuration:
    """One configuration of a plan; axes are transposed: the longest voxels first, and 2D lacks these.

    Attributes:
        spacing_mm: Voxel size that scans are resampled to.
        median_shape: Median size of a resampled case in voxels.
        network: Resolutions of the network, and the size of a patch.
        batch_size: Patches per step.
        batch_dice: Whether Dice is computed over a batch instead of each patch.
        elements: Feature-map values of one patch, the estimate of memory.
    """

    spacing_mm: tuple[float, ...]
    median_shape: tuple[float, ...]
    network: Topology
    batch_size: int
    batch_dice: bool
    elements: int


@dataclass(frozen=True)
class NnunetPlan:
    """The plan of a data set.

    Attributes:
        kind: Kind of network.
        transpose: For each axis of the plan, the axis of the data that it is.
        configurations: ``2d``, ``3d_fullres`` unless the data are flat, and ``3d_lowres`` if a patch of the
            full resolution covers little of a case.
    """

    kind: Kind
    transpose: tuple[int, int, int]
    configurations: dict[str, Configuration]


def target_spacing(spacings_mm: Sequence[Sequence[float]], shapes: Sequence[Sequence[int]]) -> Array:
    """The voxel size to resample to, float64 (3,): the median, but finer along few long voxels.

    Args:
        spacings_mm: Voxel size of each case.
        shapes: Size of each case in voxels, after cropping.
    """
    every = np.array(spacings_mm, np.float64)
    target: Array = np.percentile(every, 50, 0)
    size = np.percentile(np.array(shapes, np.float64), 50, 0)
    worst = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != worst]
    longest = max(target[others])
    if target[worst] > _ANISOTROPIC * longest and size[worst] * _ANISOTROPIC < min(size[others]):
        finer = np.percentile(every[:, worst], 10)
        target[worst] = finer if finer >= longest else longest + 1e-5
    return target


def make_nnunet_plan(
    planner: Planner,
    spacings_mm: Sequence[Sequence[float]],
    shapes: Sequence[Sequence[int]],
    *,
    outputs: int,
    memory_gb: float | None = None,
) -> NnunetPlan:
    """The plan that nnU-Net makes for a data set.

    Args:
        planner: A row of :data:`PLANNERS`.
        spacings_mm: Voxel size of each case along its three axes.
        shapes: Size of each case in voxels after cropping, along the same axes.
        outputs: Number of labels, with the background (and the value to ignore, if there is one).
        memory_gb: Memory of the GPU; None: that of the planner.
    """
    target = target_spacing(spacings_mm, shapes)
    first = int(np.argmax(target))
    transpose = (first, *(axis for axis in range(3) if axis != first))
    resampled = [
        [round(old / new * n) for old, new, n in zip(spacing, target, shape, strict=True)]
        for spacing, shape in zip(spacings_mm, shapes, strict=True)
    ]
    order = list(transpose)
    spacing, shape = target[order], np.median(resampled, 0)[order]
    task = _Task(planner, outputs, len(shapes), memory_gb or planner.memory_gb)
    voxels = float(np.prod(shape) * len(shapes))
    made: dict[str, Configuration] = {
        "2d": task.configuration(spacing[1:], shape[1:], voxels, batch_dice=True)
    }
    if shape[0] != 1:
        full = task.configuration(spacing, shape, voxels, batch_dice=False)
        coarse = task.coarser(full, shape)
        if coarse is not None:
            made["3d_lowres"] = coarse
            full = task.configuration(spacing, shape, voxels, batch_dice=True)
        made["3d_fullres"] = full
    return NnunetPlan(planner.kind, (transpose[0], transpose[1], transpose[2]), made)


@dataclass(frozen=True)
class _Task:
    """What all configurations of a plan share."""

    planner: Planner
    outputs: int
    cases: int
    memory_gb: float

    def configuration(
        self, spacing: Array, median_shape: Sequence[float] | Array, voxels: float, *, batch_dice: bool
    ) -> Configuration:
        """The configuration for a voxel size; ``voxels`` is the number of voxels in all cases."""
        dims = len(spacing)
        limit = self.planner.elements[dims] * (self.memory_gb / self.planner.memory_gb)
        batch = _REFERENCE_BATCH[dims]
        per_mm = 1 / np.array(spacing)
        sides = per_mm * (_FIRST_PATCH[dims] / np.prod(per_mm)) ** (1 / dims)
        first = [min(round(side), most) for side, most in zip(sides, median_shape, strict=True)]
        network = topology(spacing.tolist(), first)
        elements = self._elements(network)
        # The limit is that of the reference batch, and a batch has at least two patches.
        share = batch / _LEAST_BATCH if self.planner.kind == "plain_conv_unet" else 1
        while elements / share > limit:
            network = shortened(network, spacing.tolist(), median_shape)
            elements = self._elements(network)
        most = round(voxels * self.planner.covered / np.prod(network.patch_size, dtype=np.float64))
        return Configuration(
            spacing_mm=tuple(spacing.tolist()),
            median_shape=tuple(float(n) for n in median_shape),
            network=network,
            batch_size=max(min(round((limit / elements) * batch), most), _LEAST_BATCH),
            batch_dice=batch_dice,
            elements=elements,
        )

    def coarser(self, full: Configuration, shape: Array) -> Configuration | None:
        """The first stage of a cascade; None if patches of the full resolution cover enough of a case."""
        fine = np.array(full.spacing_mm)
        spacing, voxels = fine.copy(), float(np.prod(shape))
        found: Configuration | None = None
        patch = np.prod(full.network.patch_size)
        while patch / voxels < _LOWRES_BELOW:
            shorter = (max(spacing) / spacing) > _LOWRES_LONGER
            spacing[shorter if shorter.any() else slice(None)] *= _LOWRES_STEP
            size = fine / spacing * shape
            voxels = float(np.prod(size))
            rounded = [round(n) for n in size.tolist()]
            found = self.configuration(spacing, rounded, voxels * self.cases, batch_dice=False)
            patch = np.prod(found.network.patch_size)
        return found if found and np.prod(shape) / voxels >= _LOWRES_WORTH else None

    def _elements(self, network: Topology) -> int:
        return feature_map_elements(self.planner.kind, network, self.outputs)


def shortened(
    network: Topology, spacing_mm: Sequence[float], median_shape: Sequence[float] | Array
) -> Topology:
    """The network for a patch that is one step shorter along the side that covers most of the median case."""
    patch = list(network.patch_size)
    covered = [n / most for n, most in zip(patch, median_shape, strict=True)]
    axis = max(range(len(patch)), key=lambda each: (covered[each], each))
    shorter = patch.copy()
    shorter[axis] -= network.divisors[axis]
    # A shorter side may be halved less often, and then finer steps are possible.
    patch[axis] -= topology(spacing_mm, shorter).divisors[axis]
    return topology(spacing_mm, patch)
