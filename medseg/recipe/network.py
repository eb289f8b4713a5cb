"""The recipe's section ``network``: one class per kind, so that every field has an effect."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

from medseg.recipe.architecture import Architecture, LungmaskUNet, PlainConvUNet, ResidualEncoderUNet
from medseg.recipe.section import Count, NotNegative, Size

Dropout = Annotated[float, Field(ge=0, lt=1)]
Widths = Annotated[tuple[Size, ...], Field(min_length=2, max_length=8)]
Norm = Literal["batch", "instance", "none"]


class UNet(Architecture):
    """The classic U-Net (Ronneberger et al. 2015, doi:10.1007/978-3-319-24574-4_28).

    Attributes:
        kind: Name of this kind in the table of :mod:`medseg.networks`.
        widths: Number of feature maps at each resolution, finest first. The default is the original
            U-Net's (figure 1): five resolutions, four poolings.
        norm: Normalisation after each convolution; the original U-Net has none.
        dropout: Probability of dropping a feature map in training.
    """

    kind: Literal["unet"] = "unet"
    widths: Widths = (64, 128, 256, 512, 1024)
    norm: Norm = "instance"
    dropout: Dropout = 0.0

    @property
    def divisor(self) -> int:
        """Every number of ``patch.size`` must be a multiple of this."""
        return int(2 ** (len(self.widths) - 1))

    @property
    def normalised(self) -> bool:
        """Whether a patch that shrinks to one voxel cannot be normalised."""
        return self.norm != "none"


class ResidualUNet(Architecture):
    """MONAI's U-Net of residual units with strided convolutions.

    Kerfoot et al. 2019, doi:10.1007/978-3-030-12029-0_40.

    Attributes:
        kind: Name of this kind in the table of :mod:`medseg.networks`.
        widths: Number of feature maps at each resolution, finest first; MONAI's tutorials use the default.
        units: Number of convolutions in each residual unit.
        norm: Normalisation after each convolution.
        dropout: Probability of dropping a feature map in training.
    """

    kind: Literal["residual_unet"]
    widths: Widths = (16, 32, 64, 128, 256)
    units: Annotated[int, Field(ge=1, le=8)] = 2
    norm: Norm = "instance"
    dropout: Dropout = 0.0

    @property
    def divisor(self) -> int:
        """Every number of ``patch.size`` must be a multiple of this."""
        return int(2 ** (len(self.widths) - 1))

    @property
    def normalised(self) -> bool:
        """Whether a patch that shrinks to one voxel cannot be normalised."""
        return self.norm != "none"


class AttentionUNet(Architecture):
    """U-Net with attention gates on its skip connections (Oktay et al. 2018, arXiv:1804.03999).

    It uses batch normalisation, as in MONAI.

    Attributes:
        kind: Name of this kind in the table of :mod:`medseg.networks`.
        widths: Number of feature maps at each resolution, finest first.
        dropout: Probability of dropping a feature map in training.
    """

    kind: Literal["attention_unet"]
    widths: Widths = (16, 32, 64, 128, 256)
    dropout: Dropout = 0.0

    @property
    def divisor(self) -> int:
        """Every number of ``patch.size`` must be a multiple of this."""
        return int(2 ** (len(self.widths) - 1))

    @property
    def normalised(self) -> bool:
        """Whether a patch that shrinks to one voxel cannot be normalised."""
        return True


class DynUNet(Architecture):
    """nnU-Net's network: strided convolutions, leaky ReLU, instance normalisation, deep supervision.

    Isensee et al. 2021, doi:10.1038/s41592-020-01008-z.

    Attributes:
        kind: Name of this kind in the table of :mod:`medseg.networks`.
        widths: Number of feature maps at each resolution, finest first; nnU-Net starts with 32 and doubles.
        deep_supervision: Weight of the loss of the output at each resolution, finest first; only
            their ratios matter. A single number uses the finest output alone. nnU-Net halves
            the weight at each resolution.
        residual: Whether to use residual blocks instead of plain ones.
        dropout: Probability of dropping a feature map in training.
    """

    kind: Literal["dynunet"]
    widths: Annotated[tuple[Size, ...], Field(min_length=3, max_length=8)] = (32, 64, 128, 256, 320)
    deep_supervision: Annotated[tuple[NotNegative, ...], Field(min_length=1)] = (1.0, 0.5, 0.25)
    residual: bool = False
    dropout: Dropout = 0.0

    @model_validator(mode="after")
    def _supervised(self) -> DynUNet:
        most = len(self.widths) - 1
        # The first output is the one that is used; the others only support training.
        if len(self.deep_supervision) > most or not self.deep_supervision[0]:
            raise ValueError(
                f"deep_supervision {list(self.deep_supervision)}: give at most {most} numbers with "
                f"{len(self.widths)} widths, the first above 0"
            )
        return self

    @property
    def divisor(self) -> int:
        """Every number of ``patch.size`` must be a multiple of this."""
        return int(2 ** (len(self.widths) - 1))

    @property
    def normalised(self) -> bool:
        """Whether a patch that shrinks to one voxel cannot be normalised."""
        return True


class SegResNet(Architecture):
    """The residual encoder-decoder that won BraTS 2018, without its autoencoder branch.

    Myronenko 2018, arXiv:1810.11654.

    Attributes:
        kind: Name of this kind in the table of :mod:`medseg.networks`.
        filters: Number of feature maps at the finest resolution, doubled at each coarser one; a multiple
            of 8, the number of groups of its normalisation.
        blocks: Number of residual blocks at each resolution of the encoder, finest first; the default
            is the article's.
        dropout: Probability of dropping a feature map in training.
    """

    kind: Literal["segresnet"]
    filters: Annotated[int, Field(ge=8, le=512, multiple_of=8)] = 16
    blocks: Annotated[tuple[Annotated[int, Field(ge=1, le=16)], ...], Field(min_length=2, max_length=7)] = (
        1,
        2,
        2,
        4,
    )
    dropout: Dropout = 0.0

    @property
    def divisor(self) -> int:
        """Every number of ``patch.size`` must be a multiple of this."""
        return int(2 ** (len(self.blocks) - 1))

    @property
    def normalised(self) -> bool:
        """Whether a patch that shrinks to one voxel cannot be normalised; group normalisation can do so."""
        return False


class SwinUNETR(Architecture):
    """Swin transformer encoder with a convolutional decoder (Hatamizadeh et al. 2022, arXiv:2201.01266).

    Attributes:
        kind: Name of this kind in the table of :mod:`medseg.networks`.
        features: Size of the finest tokens, a multiple of 12; 48 in the article.
        depths: Number of transformer blocks in each of the four stages.
        dropout: Dropout probability of token values in training.
    """

    kind: Literal["swin_unetr"]
    features: Annotated[int, Field(ge=12, le=192, multiple_of=12)] = 24
    depths: tuple[Count, Count, Count, Count] = (2, 2, 2, 2)
    dropout: Dropout = 0.0

    @field_validator("depths")
    @classmethod
    def _even(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        # Blocks come in pairs, with plain and with shifted windows (Liu et al. 2021, figure 3).
        if any(n % 2 or n > 24 for n in value):
            raise ValueError("blocks come in pairs: each of depths must be even and at most 24")
        return value

    @property
    def divisor(self) -> int:
        """Every number of ``patch.size`` must be a multiple of this."""
        return 32

    @property
    def normalised(self) -> bool:
        """Whether a patch that shrinks to one voxel cannot be normalised."""
        return True


def _unet_by_default(data: Any) -> Any:
    return {"kind": "unet", **data} if isinstance(data, dict) else data


_Sections: TypeAlias = (
    UNet
    | ResidualUNet
    | AttentionUNet
    | DynUNet
    | SegResNet
    | SwinUNETR
    | PlainConvUNet
    | ResidualEncoderUNet
    | LungmaskUNet
)
KINDS: tuple[str, ...] = tuple(
    get_args(section.model_fields["kind"].annotation)[0] for section in get_args(_Sections)
)
"""Every kind of network; ``medseg.networks`` has a module of the same name for each."""

Network = Annotated[
    Annotated[_Sections, Field(discriminator="kind")],
    BeforeValidator(_unet_by_default),
]
"""Any kind of network; a section without ``kind`` is a ``unet``."""
