"""The base class of the sections of networks, and the sections of nnU-Net's networks."""

from __future__ import annotations

from math import lcm, prod
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, model_validator

from medseg.recipe.section import NotNegative, Positive, Section, Size

Axes: TypeAlias = tuple[int, int] | tuple[int, int, int]
_MOST_STAGES = 10
_Stages = Annotated[tuple[Size, ...], Field(min_length=2, max_length=_MOST_STAGES)]
_Steps = Annotated[tuple[Axes, ...], Field(min_length=2, max_length=_MOST_STAGES)]
_Repeats = Annotated[
    tuple[Annotated[int, Field(ge=1, le=16)], ...], Field(min_length=1, max_length=_MOST_STAGES)
]
_KERNELS = (1, 3, 5, 7)
_STRIDES = (1, 2, 3, 4)


class Architecture(Section):
    """The section of a network."""

    @property
    def divisor(self) -> int:
        """Every side of a patch must be a multiple of this, whatever the axis."""
        return 1

    def divisors(self, spatial_dims: int) -> tuple[int, ...]:
        """For each axis, the number of which the patch's side must be a multiple."""
        return (self.divisor,) * spatial_dims

    @property
    def normalised(self) -> bool:
        """Whether a patch that shrinks to one voxel cannot be normalised."""
        return True

    def misfit(self, spatial_dims: int) -> str:
        """Why the network is not one of ``spatial_dims`` dimensions; empty if it is."""
        return ""


class _Staged(Architecture):
    """Fields of both networks of nnU-Net.

    Attributes:
        widths: Number of feature maps at each resolution, finest first; nnU-Net starts with 32 and doubles
            up to 320 in 3D and 512 in 2D.
        kernels: Size of the convolutions at each resolution, one number per axis; None: 3 everywhere.
        strides: Step of the first convolution at each resolution, one number per axis, 1 at the finest;
            None: 2 at all others.
        decoder_convolutions: Number of convolutions at each resolution of the decoder, coarsest first.
        deep_supervision: Weight of the loss of the output at each resolution, finest first; only their
            ratios matter. A single number uses the finest output alone.
        bias: Whether convolutions have a bias.
        eps: Added to the variance in the instance normalisation.
        slope: Slope of the leaky ReLU below 0.
    """

    widths: _Stages = (32, 64, 128, 256, 320, 320)
    kernels: _Steps | None = None
    strides: _Steps | None = None
    decoder_convolutions: _Repeats | None = None
    deep_supervision: Annotated[tuple[NotNegative, ...], Field(min_length=1)] = (1.0,)
    bias: bool = True
    eps: Positive = 1e-5
    slope: NotNegative = 0.01

    @model_validator(mode="after")
    def _staged(self) -> _Staged:
        stages = len(self.widths)
        for name, values, count in (*self._lists(), ("decoder_convolutions", self.decoder_convolutions, -1)):
            wanted = stages + min(count, 0)
            if values is not None and len(values) != wanted:
                raise ValueError(f"{name} has {len(values)} entries: with {stages} widths give {wanted}")
        for name, steps, allowed in (
            ("kernels", self.kernels, _KERNELS),
            ("strides", self.strides, _STRIDES),
        ):
            if any(n not in allowed for step in steps or () for n in step):
                raise ValueError(f"{name} {[list(s) for s in steps or ()]}: give numbers of {list(allowed)}")
        if self.strides and prod(self.strides[0]) != 1:
            raise ValueError(f"strides start with {list(self.strides[0])}: the finest must be 1")
        if len(self.deep_supervision) > stages - 1 or not self.deep_supervision[0]:
            raise ValueError(
                f"deep_supervision {list(self.deep_supervision)}: give at most {stages - 1} numbers with "
                f"{stages} widths, the first above 0"
            )
        return self

    def _lists(self) -> tuple[tuple[str, tuple[object, ...] | None, int], ...]:
        """Name and value of the fields with one entry per resolution."""
        return ("kernels", self.kernels, 0), ("strides", self.strides, 0)

    @property
    def divisor(self) -> int:
        """Every side of a patch must be a multiple of this, whatever the axis."""
        return lcm(*self.divisors(3))

    def divisors(self, spatial_dims: int) -> tuple[int, ...]:
        """For each axis, the product of its strides."""
        return tuple(prod(step) for step in zip(*self.steps(spatial_dims), strict=True))

    def steps(self, spatial_dims: int) -> tuple[tuple[int, ...], ...]:
        """The strides at each resolution."""
        return self.strides or ((1,) * spatial_dims, *((2,) * spatial_dims,) * (len(self.widths) - 1))

    def sizes(self, spatial_dims: int) -> tuple[tuple[int, ...], ...]:
        """The kernels at each resolution."""
        return self.kernels or ((3,) * spatial_dims,) * len(self.widths)

    def misfit(self, spatial_dims: int) -> str:
        """Why the network is not one of ``spatial_dims`` dimensions; empty if it is."""
        for name, steps in (("kernels", self.kernels), ("strides", self.strides)):
            wrong = [step for step in steps or () if len(step) != spatial_dims]
            if wrong:
                return f"network.{name} has {list(wrong[0])}, but patch.size has {spatial_dims} numbers"
        return ""


class PlainConvUNet(_Staged):
    """nnU-Net's default network: strided convolutions, instance normalisation, leaky ReLU.

    It computes what ``PlainConvUNet`` of nnU-Net v2 computes, with the same names of weights; any stride and
    kernel per axis, for scans whose voxels are longer along one. Isensee et al. 2021,
    doi:10.1038/s41592-020-01008-z.

    Attributes:
        kind: Name of this kind in the table of :mod:`medseg.networks`.
        widths: Number of feature maps at each resolution, finest first; nnU-Net starts with 32 and doubles
            up to 320 in 3D and 512 in 2D.
        kernels: Size of the convolutions at each resolution, one number per axis; None: 3 everywhere.
        strides: Step of the first convolution at each resolution, one number per axis, 1 at the finest;
            None: 2 at all others.
        convolutions: Number of convolutions at each resolution of the encoder; None: 2.
        decoder_convolutions: The same for the decoder, coarsest first; None: 2.
        deep_supervision: Weight of the loss of the output at each resolution, finest first; only their
            ratios matter. A single number uses the finest output alone.
        bias: Whether convolutions have a bias.
        eps: Added to the variance in the instance normalisation.
        slope: Slope of the leaky ReLU below 0.
    """

    kind: Literal["plain_conv_unet"]
    convolutions: _Repeats | None = None

    def _lists(self) -> tuple[tuple[str, tuple[object, ...] | None, int], ...]:
        return (*super()._lists(), ("convolutions", self.convolutions, 0))


class ResidualEncoderUNet(_Staged):
    """nnU-Net's network with residual blocks in its encoder (ResEnc).

    It computes what ``ResidualEncoderUNet`` of nnU-Net v2 computes, with the same names of weights. Isensee
    et al. 2024, arXiv:2404.09556.

    Attributes:
        kind: Name of this kind in the table of :mod:`medseg.networks`.
        widths: Number of feature maps at each resolution, finest first; nnU-Net starts with 32 and doubles
            up to 320 in 3D and 512 in 2D.
        kernels: Size of the convolutions at each resolution, one number per axis; None: 3 everywhere.
        strides: Step of the first convolution at each resolution, one number per axis, 1 at the finest;
            None: 2 at all others.
        blocks: Number of residual blocks at each resolution of the encoder; None: nnU-Net's 1, 3, 4, and 6
            at all others.
        decoder_convolutions: Number of convolutions at each resolution of the decoder, coarsest first;
            None: 1.
        deep_supervision: Weight of the loss of the output at each resolution, finest first; only their
            ratios matter. A single number uses the finest output alone.
        bias: Whether convolutions have a bias.
        eps: Added to the variance in the instance normalisation.
        slope: Slope of the leaky ReLU below 0.
    """

    kind: Literal["residual_encoder_unet"]
    blocks: _Repeats | None = None

    def _lists(self) -> tuple[tuple[str, tuple[object, ...] | None, int], ...]:
        return (*super()._lists(), ("blocks", self.blocks, 0))


class LungmaskUNet(Architecture):
    """The 2D U-Net of lungmask: ReLU before batch normalisation, average pooling, bilinear upsampling.

    Hofmanninger et al. 2020, doi:10.1186/s41747-020-00173-2. It computes what lungmask computes before its
    softmax, with the same names of weights.

    Attributes:
        kind: Name of this kind in the table of :mod:`medseg.networks`.
        widths: Number of feature maps at each resolution, finest first.
    """

    kind: Literal["lungmask_unet"]
    widths: Annotated[tuple[Size, ...], Field(min_length=2, max_length=8)] = (64, 128, 256, 512, 1024)

    @property
    def divisor(self) -> int:
        """Every number of ``patch.size`` must be a multiple of this."""
        return int(2 ** (len(self.widths) - 1))
