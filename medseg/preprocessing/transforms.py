"""The preparation of a case as MONAI transforms: wrappers around :mod:`medseg.preprocessing.preparation`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms.compose import Compose
from monai.transforms.transform import Transform

from medseg.images.grid import Grid
from medseg.preprocessing.preparation import Step, steps
from medseg.recipe import Recipe


class StepTransform(Transform):  # type: ignore[misc]  # monai has no types
    """A step of the preparation as a MONAI dictionary transform.

    MONAI's own transforms are not used. Spacingd samples without averaging, so that the noise of fine scans
    aliases into coarse grids, and needs 1.4 GB and 1.2 s for a 512x512x300 CT. Orientationd chooses the axes
    of an oblique scan by nibabel's rule, while the rest of this package uses that of :class:`Grid`.

    Attributes:
        step: The step.
    """

    def __init__(self, step: Step) -> None:
        self.step = step

    def __call__(self, data: Mapping[str, MetaTensor]) -> dict[str, MetaTensor]:
        """The case after the step.

        Args:
            data: Tensors (C, X, Y, Z) on the CPU, all on the grid of ``image``. They may be overwritten.
        """
        arrays = {name: tensor.as_tensor().numpy() for name, tensor in data.items()}
        done, grid = self.step(arrays, grid_of(data["image"]))
        return {name: on_grid(torch.from_numpy(values), grid) for name, values in done.items()}


def compose(recipe: Recipe) -> Compose:
    """The MONAI transform of a case ``{"image": ..., "label": ..., "unknown": ...}``.

    It gives the same bits as :func:`medseg.preprocessing.preparation.prepare`. All values are `MetaTensor`
    (C, X, Y, Z) of any type, with the scan's affine. The last two are optional.
    """
    return Compose([StepTransform(step) for step in steps(recipe)])


def on_grid(values: torch.Tensor, grid: Grid) -> MetaTensor:
    """``values`` (C, X, Y, Z) as a MONAI tensor with the affine of ``grid``."""
    return MetaTensor(values, affine=torch.from_numpy(grid.affine.copy()))


def grid_of(image: MetaTensor) -> Grid:
    """The grid of a MONAI tensor (C, X, Y, Z)."""
    x, y, z = image.shape[1:]
    return Grid((x, y, z), np.asarray(image.affine, dtype=np.float64))
