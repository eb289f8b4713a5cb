"""The airless part of a mask of the lungs: consolidation, effusion, tumour, vessels and the partial rim."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medseg.images.label import Label
from medseg.images.run_length import memory_order
from medseg.images.volume import Mask, Volume, members
from medseg.inference.lung_exclusions import AIR_HU


def lungs_of(labels: Sequence[Label]) -> tuple[Label, ...]:
    """The labels that have a side and are named lung, such as ``right_lung``."""
    return tuple(label for label in labels if label.side is not None and "lung" in label.name.lower())


def airless_ml(mask: Mask, scan: Volume) -> dict[str, float]:
    """The volume of each lung, in ml by name, that is not darker than -500 HU.

    A healthy lung has some as well: its vessels, and the voxels at its surface.

    Args:
        mask: A mask of the lungs.
        scan: The CT in HU, on the same grid.
    """
    order = memory_order(mask.array)
    slices = list(zip(mask.array.transpose(order), scan.array.transpose(order), strict=True))
    return {
        label.name: mask.grid.voxel_ml
        * sum(np.count_nonzero(members(painted, label) & (hu >= AIR_HU)) for painted, hu in slices)
        for label in lungs_of(mask.labels)
    }


def aerated(mask: Mask, scan: Volume) -> Mask:
    """The mask without those voxels of its lungs that are not darker than -500 HU.

    Args:
        mask: A mask of the lungs. Other labels are kept as they are, also lesions within the lungs.
        scan: The CT in HU, on the same grid.
    """
    lungs = lungs_of(mask.labels)
    others = {value for label in mask.labels if label not in lungs for value in label.values}
    alone = sorted({value for label in lungs for value in label.values} - others)
    painted = np.array(mask.array, order="K")
    painted[np.isin(mask.array, alone) & (scan.array >= AIR_HU)] = 0
    return Mask(painted, mask.grid, mask.labels, mask.source)
