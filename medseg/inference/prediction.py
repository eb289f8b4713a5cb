"""What a segmentation method gives: a `Prediction` of a scan that it has prepared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

import numpy as np
import numpy.typing as npt

from medseg.images.volume import Mask
from medseg.system.notices import Notice


@dataclass(frozen=True)
class Prediction:
    """The mask of one scan, and how sure the method was of it.

    Attributes:
        mask: On exactly the scan's grid.
        entropy: Uncertainty of each label of the network that was found, in bits, 0 (sure) to 1; see
            :class:`medseg.inference.uncertainty.Entropy`. Empty for a method without probabilities.
        probabilities: Of each label of the network, float32 (X, Y, Z) on the scan's grid. Empty unless they
            were asked for, and for a method without probabilities.
        notices: What is unusual about the scan as it was prepared and segmented, or about the mask. Each
            was also sent to whoever collects notices, or else given as a warning, when it was found.

    Example:
        >>> segmenter = medseg.load_segmenter("threshold")
        >>> prediction = segmenter.prepare(medseg.read("chest.nii.gz")).predict()
        >>> sorted(prediction.mask.volumes_ml()), prediction.notices
        (['left_lung', 'right_lung'], ())
    """

    mask: Mask
    entropy: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    probabilities: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=lambda: MappingProxyType({}))
    notices: tuple[Notice, ...] = ()


class PreparedScan(Protocol):
    """A scan that a method has checked and prepared: everything but the segmentation is done."""

    def predict(self, *, probabilities: bool = False) -> Prediction:
        """The scan segmented. Call it once: what was prepared may be used up, so that its memory is free.

        Args:
            probabilities: Also return the probabilities of a method that has them. They take 4 bytes a
                voxel and label.

        Raises:
            UsageError: the prepared scan is used up (``used-up``).
        """
        ...
