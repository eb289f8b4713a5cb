"""The recipe's section ``network``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from medseg.recipe.part import Part, Size


class Network(Part):
    """The network's kind and size.

    Attributes:
        kind: A row of the table in :mod:`medseg.networks`.
        widths: Feature maps at each resolution, finest first. The default is the original
            U-Net's (Ronneberger et al. 2015, doi:10.1007/978-3-319-24574-4_28, figure 1):
            five resolutions, four poolings.
        norm: Normalisation after each convolution; the original U-Net had none.
        dropout: Probability of dropping a feature map in training.
    """

    kind: Literal["unet"] = "unet"
    widths: Annotated[tuple[Size, ...], Field(min_length=2, max_length=8)] = (64, 128, 256, 512, 1024)
    norm: Literal["batch", "instance", "none"] = "instance"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
