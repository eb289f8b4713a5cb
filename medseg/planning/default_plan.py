"""medseg's own plan: a recipe that this machine can train, with a reason for each number.

It follows nnU-Net's rules for voxel size and resolutions, and adds what they lack: a budget for a CPU,
coarser voxels as long as no structure is lost, and the choice between 2D and 3D.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10, prod
from typing import Any

import numpy as np

from medseg.planning.fingerprint import Fingerprint
from medseg.planning.nnunet_planner import shortened, target_spacing
from medseg.planning.nnunet_recipe import intensity, intensity_reason
from medseg.planning.nnunet_topology import Kind, Topology, feature_map_elements, topology
from medseg.planning.recipe_draft import RecipeDraft
from medseg.planning.structures import Structures

KIND: Kind = "plain_conv_unet"
# Voxels across the thinnest tenth of the parts of a label: at two, a resampled structure may vanish.
_ACROSS = 3
# Slices so thick that a 3D patch would hold few of them, and too few slices to halve once.
_2D_RATIO, _2D_SLICES = 5, 8
# A patch that covers less of a case has too little context to place a structure (nnU-Net: a quarter).
_COVERED = {3: 1 / 8, 2: 1 / 2}
_COARSER = 1.03
_LONGER = 2
_BATCHES = (2, 12)
_SMALL_STRUCTURE = 1e-3
_GIB = 1 << 30


@dataclass(frozen=True)
class Budget:
    """What a step of training may cost.

    Attributes:
        device: ``cpu`` or ``gpu``.
        memory: Bytes for feature maps and weights.
        voxels: Voxels of a batch, by number of spatial dimensions.
        width: Number of feature maps at the finest resolution.
        most_width: Largest number of feature maps.
        bytes_per_element: Memory for each value of the feature maps, with its gradient and copies.
        epochs: Largest number of epochs.
        steps: Range of steps per epoch.
    """

    device: str
    memory: int
    voxels: dict[int, int]
    width: int
    most_width: int
    bytes_per_element: int
    epochs: int
    steps: tuple[int, int]

    def widths(self, network: Topology) -> tuple[int, ...]:
        """Number of feature maps at each resolution: doubled up to the largest."""
        return tuple(min(self.most_width, self.width * 2**level) for level in range(len(network.strides)))

    def memory_of(self, network: Topology, batch: int, outputs: int) -> int:
        """Bytes that a step needs, estimated from its feature maps."""
        elements = feature_map_elements(KIND, network, outputs, widths=self.widths(network))
        return elements * batch * self.bytes_per_element


def budget(device: str, memory: int) -> Budget:
    """The budget of a device with so many bytes to use.

    On a CPU a step of 2**18 voxels with 16 feature maps takes seconds, so that an afternoon holds the some
    thousand steps that the shipped recipes learn from. On a GPU memory limits a step, as in nnU-Net.
    """
    if device == "cpu":
        return Budget("cpu", memory, {3: 2**18, 2: 2**18}, 16, 128, 12, 40, (25, 50))
    return Budget("gpu", memory, {3: 2**23, 2: 2**22}, 32, 320, 8, 200, (100, 250))


def default_recipe(
    found: Fingerprint, known: Structures, limits: Budget, start: dict[str, Any]
) -> RecipeDraft:
    """The recipe that medseg plans.

    Args:
        found: The fingerprint.
        known: The labels.
        limits: The budget.
        start: Fields name, description, modality, channels, labels and ignore_value.
    """
    fine = target_spacing([case.spacing_mm for case in found.cases], [case.shape for case in found.cases])
    dims, why = _dimensions(found, fine.tolist())
    spacing, network, batch, coarser = _fitted(found, fine.tolist(), dims, limits, len(known.labels))
    covered = prod(network.patch_size) / prod(_shape(found, spacing)[:dims])
    steps = int(np.clip(ceil(2 * len(found.cases) / batch), *limits.steps))
    small = _foreground_share(found) < _SMALL_STRUCTURE
    data: dict[str, Any] = start | {
        "prepare": {
            "spacing_mm": list(spacing),
            **({"crop": {"above": -500, "margin_mm": 10}} if found.modality == "CT" else {}),
            "intensity": intensity(found),
        },
        "patch": {
            "size": list(network.patch_size),
            **({"neighbours": 1} if dims == 2 and found.median_shape[2] > 1 else {}),
        },
        "network": {
            "kind": KIND,
            "widths": list(limits.widths(network)),
            "kernels": [list(each) for each in network.kernels],
            "strides": [list(each) for each in network.strides],
            "deep_supervision": [0.5**level for level in range(max(len(network.strides) - 2, 1))],
        },
        "loss": {"kind": "dice_ce" if known.exclusive else "dice_bce"},
        "augment": "light" if limits.device == "cpu" else "full",
        "train": {
            "epochs": limits.epochs,
            "steps_per_epoch": steps,
            "batch_size": batch,
            "foreground_fraction": 0.7 if small else 0.5,
            "learning_rate": 0.002,
            "precision": "fp32" if limits.device == "cpu" else "fp16",
            "validate_every": 5,
            "patience": 6,
        },
        "predict": {"overlap": 0.5, "window_batch": min(batch, 2 if dims == 3 else 8)},
    }
    memory = limits.memory_of(network, batch, len(known.labels) + 1) / _GIB
    reasons = {
        "labels": known.reason,
        "prepare.spacing_mm": coarser,
        "prepare.crop": "The box of the patient, without the air around.",
        "prepare.intensity": intensity_reason(found),
        "patch": f"{why} A patch covers {100 * min(covered, 1):.0f} % of a median "
        f"{'case' if dims == 3 else 'slice'}, and is a multiple of "
        f"{' x '.join(str(n) for n in network.divisors)}.",
        "network": f"nnU-Net's plain U-Net with {limits.width} feature maps at first, not 32: for a CPU."
        if limits.device == "cpu"
        else "nnU-Net's plain U-Net.",
        "loss": _loss_reason(known),
        "augment": "Half of the strength of nnU-Net's, for a short training."
        if limits.device == "cpu"
        else "As nnU-Net's.",
        "train": f"Two patches of each case an epoch, {limits.steps[0]} to {limits.steps[1]} steps; training "
        f"stops earlier if 6 validations bring nothing. A batch has about "
        f"{limits.voxels[dims]} voxels at most, and needs some {memory:.1f} GB.",
    }
    if small:
        reasons["train.foreground_fraction"] = "The structures are less than a thousandth of a scan."
    return RecipeDraft(data, reasons, known.cautions)


def _dimensions(found: Fingerprint, fine: Sequence[float]) -> tuple[int, str]:
    """2 or 3, and why."""
    ratio, slices = fine[2] / max(fine[:2]), found.median_shape[2]
    if slices < _2D_SLICES:
        return 2, f"2D, because a case has a median of {slices:g} slices."
    if ratio >= _2D_RATIO:
        return (
            2,
            f"2D with neighbouring slices, because they are {ratio:.1f} times as far apart as voxels wide.",
        )
    return (
        3,
        f"3D, because slices are {ratio:.1f} times as far apart as voxels are wide (2D from {_2D_RATIO}).",
    )


def _fitted(
    found: Fingerprint, fine: Sequence[float], dims: int, limits: Budget, labels: int
) -> tuple[tuple[float, float, float], Topology, int, str]:
    """Voxel size, network and batch within the budget, and the reason for the voxel size."""
    spacing, most = list(fine), _coarsest(found, fine)
    while True:
        network = _network(spacing[:dims], _shape(found, spacing)[:dims], dims, limits, labels)
        voxels = prod(_shape(found, spacing)[:dims])
        if prod(network.patch_size) >= _COVERED[dims] * voxels:
            break
        longest = max(spacing[:dims])
        grow = [axis for axis in range(dims) if spacing[axis] * _COARSER <= most[axis]]
        grow = [axis for axis in grow if longest / spacing[axis] > _LONGER] or grow
        if not grow:
            break
        for axis in grow:
            spacing[axis] *= _COARSER
    native = all(abs(a - b) < 1e-9 for a, b in zip(spacing, fine, strict=True))
    x, y, z = (_readable(mm) for mm in spacing)
    rounded = (x, y, z)
    shape = _shape(found, rounded)
    network = _network(rounded[:dims], shape[:dims], dims, limits, labels)
    batch = int(np.clip(limits.voxels[dims] // prod(network.patch_size), *_BATCHES))
    while batch > _BATCHES[0] and limits.memory_of(network, batch, labels + 1) > limits.memory:
        batch -= 1
    sizes = " x ".join(f"{n:.0f}" for n in shape)
    reason = f"Median of the data, rounded: a case has a median of {sizes} voxels."
    if not native:
        before = " x ".join(f"{mm:.3g}" for mm in fine)
        reason = (
            f"Coarser than the median of {before} mm, so that a patch covers "
            f"1/{1 / _COVERED[dims]:.0f} of a {'case' if dims == 3 else 'slice'} of {sizes} voxels"
        )
        if prod(network.patch_size) < 0.9 * _COVERED[dims] * prod(shape[:dims]):
            reason += " as far as the small structures allow"
        reason += f"; the thinnest tenth of all parts still has {_ACROSS} voxels across."
    return rounded, network, batch, reason


def _coarsest(found: Fingerprint, fine: Sequence[float]) -> list[float]:
    """The longest voxels along each axis that lose no structure, and never shorter than those of the data."""
    thin = [list(each.thin_mm) for each in found.labels if each.parts]
    least = np.min(thin, axis=0) if thin else np.full(3, np.inf)
    return [max(mm, float(part) / _ACROSS) for mm, part in zip(fine, least, strict=True)]


def _network(
    spacing: Sequence[float], shape: Sequence[float], dims: int, limits: Budget, labels: int
) -> Topology:
    """The largest network within the budget: a batch of two patches of the shape of the case."""
    voxels = limits.voxels[dims] / (_BATCHES[0] if dims == 3 else 4)
    network = topology(spacing, _sides(spacing, shape, voxels))
    while len(network.strides) > 1 and (
        prod(network.patch_size) > 1.15 * voxels
        or limits.memory_of(network, _BATCHES[0], labels + 1) > limits.memory
    ):
        smaller = shortened(network, spacing, shape)
        if min(smaller.patch_size) < 1 or prod(smaller.patch_size) >= prod(network.patch_size):
            break
        network = smaller
    return network


def _sides(spacing: Sequence[float], shape: Sequence[float], voxels: float) -> list[float]:
    """The sides of a patch as large in mm along all axes, within a case; short axes leave room for others."""
    sides: dict[int, float] = {}
    free = list(range(len(spacing)))
    while free:
        per_mm = {axis: 1 / spacing[axis] for axis in free}
        left = voxels / prod(sides.values())
        scale = (left / prod(per_mm.values())) ** (1 / len(free))
        short = [axis for axis in free if per_mm[axis] * scale >= shape[axis]]
        for axis in short or free:
            sides[axis] = max(1.0, min(per_mm[axis] * scale, shape[axis]))
        free = [axis for axis in free if axis not in sides]
    return [float(round(sides[axis])) for axis in range(len(spacing))]


def _shape(found: Fingerprint, spacing: Sequence[float]) -> list[float]:
    """Median size of a case in voxels of a size."""
    sizes = [
        [
            max(1, round(old / new * n))
            for old, new, n in zip(case.spacing_mm, spacing, case.shape, strict=True)
        ]
        for case in found.cases
    ]
    return [float(n) for n in np.median(sizes, axis=0)]


def _foreground_share(found: Fingerprint) -> float:
    case_ml = float(np.median([prod(c.spacing_mm) * prod(c.shape) for c in found.cases])) / 1000
    return min(each.median_ml for each in found.labels) / case_ml


def _loss_reason(known: Structures) -> str:
    if known.exclusive:
        return "Dice and cross-entropy of a softmax: each voxel has one label."
    return "Dice and cross-entropy of one sigmoid per label."


def _readable(mm: float) -> float:
    """A voxel size with three digits, rounded down so that nothing gets coarser than allowed."""
    digits = 2 - floor(log10(mm))
    return float(floor(mm * 10.0**digits * (1 + 1e-9)) / 10.0**digits)
