"""The decision which voxels are lung, from thresholds and the probabilities of three networks.

Aerated and airless lung need different evidence. Thresholds find air reliably, but some of it is not lung:
air outside the patient, in the bowel, in the table and in the airway; there the coarse network decides.
Airless lung differs from other soft tissue only by its position, so two networks must agree on it, and fat
is excluded. The numbers were chosen by looking at patients that the networks had not seen:
benchmarks/lungs/context/README.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from medseg.images.grid import Grid
from medseg.images.run_length import Array, Binary
from medseg.inference.leaked_airway import leaked_airway
from medseg.inference.missed_lung import lung_and_gas
from medseg.inference.neighbourhood import grown, opened, within

RULES = 5
"""Number of these rules. It is part of the digest of every output, and changes whenever masks do."""

AIR_HU = -500.0
"""Air or aerated lung is below this: about half way from lung (-850) to soft tissue (50)."""

EDGE_HU, EDGE_WIDTH_HU = -400.0, 600.0
"""HU at the surface of aerated lung, half way from lung (-850) to soft tissue (50) as for thresholds, and the
range of HU over which its probability rises from 0 to 1."""

SOFT_HU, SOFT_PROBABILITY = -300.0, 0.6
"""Voxels above this HU need this probability of the fine network."""

RIM_HU, RIM_PROBABILITY = -250.0, 0.95
"""Layers of at most two voxels that are denser than this need this probability: at the surface of a lung they
are partial volume of the chest wall, which the fine network was taught by generous manual contours."""

FAT_HU, FAT_PROBABILITY = (-160.0, -30.0), 0.95
"""Range of the mean HU of fat over 3 x 3 x 3 voxels, and the probability above which it is lung anyway."""

DARK_PROBABILITY, DARK_AGREED_PROBABILITY = 0.5, 0.2
"""Smallest probability of the fine network for dense voxels inside a threshold mask, such as vessels at the
hilum; and the smallest one where the slice network agrees and the voxel is not fat. Of such voxels 0.71 are
lung in manual masks and 0.96 in silver ones."""

COARSE_PROBABILITY = 0.2
"""Smallest probability of the coarse network outside the threshold masks."""

BESIDE_MM = 4.0
"""Air further than this from the threshold masks is not lung, but airway, bowel or outside. Nearer air needs
the slice network as well, which tells bronchi from lung better than the 3D networks do."""

MISSED_PROBABILITY = 0.9
"""An exception to `BESIDE_MM`: air of this probability, in parts that are large and not gas below the lungs,
is a lung that thresholds missed; see :mod:`medseg.inference.missed_lung`."""

AIRLESS_PROBABILITY, AIRLESS_ML = 0.08, 50.0
"""Airless lung of at least this volume that only the slice network finds needs this mean coarse
probability. It was 0.12 and 0.17 in a real collapse and effusion, below 0.05 in spleen, liver and heart."""

PART_SHARE = 0.5
"""A component of a threshold mask is lung if the coarse network finds lung in this fraction of it."""

SMALLEST_ML, AIRY_SHARE = 5.0, 0.1
"""Smallest volume of a component of the mask, and the smallest fraction of it that is air."""

AGREEMENT = 0.9
"""Smallest Dice of the aerated voxels of the mask with those of the slice network."""

_INSIDE = 0.02
"""Voxels of the mask have at least 0.5 plus this, all others at most 0.5 minus this."""

_CORNERS = np.ones((3, 3, 3), dtype=np.bool_)

Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Evidence:
    """What the three networks and thresholds say about a scan, all in RAS order on one grid.

    Attributes:
        hu: The CT in HU, (X, Y, Z).
        dark: Threshold masks of the right and the left lung.
        coarse: The coarse network's probability of lung, float32 (X, Y, Z).
        fine: The fine network's probability of lung, float32 (X, Y, Z).
        slices: The slice network's probability of lung, float32 (X, Y, Z).
        grid: Grid of all these arrays.
    """

    hu: Array
    dark: tuple[Binary, Binary]
    coarse: Probabilities
    fine: Probabilities
    slices: Probabilities
    grid: Grid

    def part(self, box: tuple[slice, slice, slice]) -> Evidence:
        """The evidence in a box; the origin of its grid is not moved."""
        right, left = self.dark
        coarse, fine, slices = self.coarse[box], self.fine[box], self.slices[box]
        return Evidence(self.hu[box], (right[box], left[box]), coarse, fine, slices, self.grid)


def combine_evidence(evidence: Evidence) -> Probabilities | None:
    """Probability of lung, float32 (X, Y, Z): above 0.5 in the lungs, else below.

    Returns:
        None if the aerated lung found is not the slice network's (`AGREEMENT`): the view is too small or too
        unusual for thresholds and the coarse network, and the slice network decides alone.
    """
    result = np.zeros(evidence.hu.shape, dtype=np.float32)
    likely = np.maximum(evidence.fine, evidence.slices) > SOFT_PROBABILITY / 2
    box = _bounding_box(evidence.dark[0] | evidence.dark[1] | likely)
    if box is None:
        return result
    part = evidence.part(box)
    lungs, confirmed, gas = _decide(part)
    air = (part.hu < AIR_HU) & ~gas
    if _dice(lungs & air, (part.slices > 0.5) & air) < AGREEMENT:
        return None
    result[box] = _probabilities(lungs, confirmed, part)
    return result


def _decide(evidence: Evidence) -> tuple[Binary, Binary, Binary]:
    """A mask of both lungs, the part of it that is surely aerated, and gas that networks mistake for lung."""
    hu, grid, fine = evidence.hu, evidence.grid, evidence.fine
    sure = (hu < AIR_HU) & (evidence.coarse > 0.5) & (fine > MISSED_PROBABILITY)
    right, left = (_confirmed(side, evidence.coarse) for side in evidence.dark)
    kept = right | left
    unlike = kept & (hu < AIR_HU) & (evidence.slices < 0.5)
    kept &= ~leaked_airway(unlike, unlike & (evidence.coarse < 0.5) & (fine < 0.5), grid.spacing_mm)
    missed, gas = lung_and_gas(sure & ~(evidence.dark[0] | evidence.dark[1]), hu, kept, grid.spacing_mm)
    kept |= missed
    if not kept.any():
        return kept, kept, gas
    fat = _fat(hu)
    added = (fine > 0.5) & (evidence.coarse > COARSE_PROBABILITY)
    air = added & (hu <= AIR_HU) & (evidence.slices > 0.5)
    added &= hu > AIR_HU
    added |= within(air, kept, BESIDE_MM, grid.spacing_mm)
    added &= ((hu < SOFT_HU) | (fine > SOFT_PROBABILITY)) & (~fat | (fine > FAT_PROBABILITY))
    dense = added & (hu > RIM_HU) & ~kept
    added &= ~dense | opened(dense) | (fine > RIM_PROBABILITY)
    agreed = (fine > DARK_AGREED_PROBABILITY) & (evidence.slices > 0.5) & ~fat
    lungs = (kept & ((hu < AIR_HU) | (fine > DARK_PROBABILITY) | agreed)) | added
    lungs |= _airless(evidence, lungs, fat)
    return _aerated(lungs & ~gas, hu < AIR_HU, grid), kept, gas


def _airless(evidence: Evidence, lungs: Binary, fat: Binary) -> Binary:
    """Airless lung beside the mask that the slice network finds and the coarse network does not rule out."""
    from scipy import ndimage

    # Beside air, the mean of soft tissue is that of fat: the voxel itself must not be soft tissue either.
    fat = fat & (evidence.hu < 0)
    candidates = (evidence.slices > 0.5) & (evidence.hu > AIR_HU) & ~lungs & ~fat
    parts, count = ndimage.label(opened(candidates), _CORNERS)
    if not count:
        return np.zeros_like(lungs)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    inside = parts > 0
    means = np.bincount(parts[inside], weights=evidence.coarse[inside], minlength=count + 1)
    beside = np.zeros(count + 1, dtype=np.bool_)
    beside[np.unique(parts[grown(grown(lungs))])] = True
    chosen = (sizes * prod(evidence.grid.spacing_mm) / 1000 >= AIRLESS_ML) & beside
    chosen &= means >= AIRLESS_PROBABILITY * sizes
    chosen[0] = False
    return grown(grown(chosen[parts])) & candidates


def _probabilities(lungs: Binary, confirmed: Binary, evidence: Evidence) -> Probabilities:
    """Probabilities whose surface at 0.5 is that of the mask, placed between voxels as the evidence says."""
    hu, fine = evidence.hu, evidence.fine
    needed = 0.5 + 0.1 * np.clip((hu - SOFT_HU) / 10, 0, 1) + 0.3 * np.clip((hu - RIM_HU + 10) / 40, 0, 1)
    likely = 0.5 + fine - needed
    aerated = 0.5 + np.clip((EDGE_HU - hu) / EDGE_WIDTH_HU, -0.5, 0.5)
    # Not the airway beside it, which is as dark as lung.
    surface = grown(confirmed) & ~lungs & (hu >= AIR_HU)
    likely = np.where(confirmed | surface, np.maximum(likely, aerated), likely)
    # Air that is not lung, such as a bronchus, mostly lacks the agreement of the slice network alone.
    likely = np.where(~lungs & (hu < AIR_HU), np.minimum(likely, evidence.slices), likely)
    found = np.where(lungs, np.maximum(likely, 0.5 + _INSIDE), np.minimum(likely, 0.5 - _INSIDE))
    return np.asarray(np.clip(found, 0, 1), dtype=np.float32)


def _fat(hu: Array) -> Binary:
    from scipy import ndimage

    mean_hu = ndimage.uniform_filter(np.asarray(hu, dtype=np.float32), 3, mode="nearest")
    return np.asarray((mean_hu > FAT_HU[0]) & (mean_hu < FAT_HU[1]))


def _dice(one: Binary, other: Binary) -> float:
    """Dice of two masks, 1 if both are empty."""
    total = np.count_nonzero(one) + np.count_nonzero(other)
    return 2 * np.count_nonzero(one & other) / total if total else 1.0


def _bounding_box(mask: Binary) -> tuple[slice, slice, slice] | None:
    """The box of a mask with a margin of one voxel for its surface; None if it is empty."""
    from scipy import ndimage

    boxes = ndimage.find_objects(mask.view(np.uint8))
    if not boxes:
        return None
    x, y, z = (slice(max(0, each.start - 1), each.stop + 1) for each in boxes[0])
    return x, y, z


def _confirmed(dark: Binary, probability: Probabilities) -> Binary:
    """The components of a threshold mask in which the coarse network finds lung."""
    from scipy import ndimage

    parts, count = ndimage.label(dark, structure=_CORNERS)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    lung = np.bincount(parts[probability > 0.5], minlength=count + 1) >= PART_SHARE * sizes
    lung[0] = False
    return np.asarray(lung[parts])


def _aerated(lungs: Binary, air: Binary, grid: Grid) -> Binary:
    """The components that are large enough and contain enough air."""
    from scipy import ndimage

    parts, count = ndimage.label(lungs, structure=_CORNERS)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    airy = np.bincount(parts[air], minlength=count + 1)
    lung = (sizes * prod(grid.spacing_mm) / 1000 >= SMALLEST_ML) & (airy >= AIRY_SHARE * sizes)
    lung[0] = False
    return np.asarray(lung[parts])
