"""The recipe's section ``context``: a coarse network that sees the whole chest at once."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from medseg.recipe.network import Network, UNet
from medseg.recipe.section import NotNegative, Section, Size

Factor = Annotated[int, Field(ge=2, le=8)]


class Context(Section):
    """A coarse network whose probabilities of lung are further input channels of the recipe's network.

    It sees the prepared scan at a lower resolution, around the dark regions found by thresholds, and
    separates right from left and lung from neighbouring tissue. One model file holds both networks. They
    are trained together by ``benchmarks/lungs/context/train.py``, not by ``medseg train``.

    Attributes:
        factor: Edge length of the coarse network's voxels, in voxels of the prepared grid.
        size: Size of the coarse network's input, in its own voxels.
        margin_mm: Smallest margin around the dark regions in the coarse network's input.
        network: Architecture and size of the coarse network.
    """

    factor: Factor = 2
    size: tuple[Size, Size, Size] = (96, 80, 80)
    margin_mm: NotNegative = 24.0
    network: Network = UNet()
