"""The result of a segmentation method: a `Prediction` for a scan that it has prepared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Protocol

import numpy as np
import numpy.typing as npt

from medseg.images.volume import Mask
from medseg.system.notices import Notice


@dataclass(frozen=True)
class Prediction:
    """The mask of one scan, with the method's uncertainty about it.

    Attributes:
        mask: The mask, on exactly the scan's grid.
        entropy: Uncertainty of each network label that was found, in bits, 0 (certain) to 1; see
            :class:`medseg.inference.uncertainty.Entropy`. Empty for a method without probabilities.
        probabilities: Probability of each network label, float32 (X, Y, Z) on the scan's grid. Empty unless
            requested, and for a method without probabilities.
        notices: What was unusual about the scan or the mask. Each notice was also sent to the current
            collector, or issued as a warning if there is none.

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

    def only(self, *names: str) -> Prediction:
        """The prediction of these labels, see :meth:`medseg.Mask.only`; of all if none is named."""
        if not names:
            return self
        return replace(
            self,
            mask=self.mask.only(*names),
            entropy={name: self.entropy[name] for name in self.entropy if name in names},
            probabilities={name: self.probabilities[name] for name in self.probabilities if name in names},
        )


class PreparedScan(Protocol):
    """A scan that a method has checked and prepared; only the segmentation remains."""

    def predict(self, *, probabilities: bool = False) -> Prediction:
        """The segmentation. Call it once: the prepared data is released to free memory.

        Args:
            probabilities: Also return the probabilities if the method has them. They take 4 bytes per
                voxel and label.

        Raises:
            UsageError: the prepared scan was segmented before (``used-up``).
        """
        ...
