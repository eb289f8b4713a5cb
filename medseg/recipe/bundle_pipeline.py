"""The recipe's section ``pipeline`` for MONAI bundles: the steps of ``inference.json`` as data."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medseg.recipe.section import Finite, Positive, Section, SpacingMm


class BundleRange(Section):
    """``ScaleIntensityRanged``: ``low..high`` is mapped to ``to_low..to_high``.

    Attributes:
        kind: Name of this kind.
        low: ``a_min``.
        high: ``a_max``.
        to_low: ``b_min``; None with ``to_high`` None: the range is mapped to 0..1.
        to_high: ``b_max``.
        clip: Whether values beyond ``to_low..to_high`` are clipped.
    """

    kind: Literal["range"]
    low: Finite
    high: Finite
    to_low: Finite | None = None
    to_high: Finite | None = None
    clip: bool = False

    @model_validator(mode="after")
    def _ordered(self) -> BundleRange:
        if self.low >= self.high:
            raise ValueError(f"range low {self.low:g} must be below high {self.high:g}")
        if (self.to_low is None) != (self.to_high is None):
            raise ValueError("give both or neither of to_low and to_high")
        return self


class BundleZScore(Section):
    """``NormalizeIntensityd``: mean 0 and standard deviation 1.

    Attributes:
        kind: Name of this kind.
        nonzero: Only over voxels that are not 0, leaving the others unchanged.
        channel_wise: Each channel for itself, instead of all together.
    """

    kind: Literal["zscore"]
    nonzero: bool = False
    channel_wise: bool = False


BundleIntensity = Annotated[BundleRange | BundleZScore, Field(discriminator="kind")]


class BundlePipeline(Section):
    """Preparation, windows and restoring of a bundle of MONAI (Cardoso et al. 2022, arXiv:2211.02701).

    The scan is turned, resampled linearly from its first voxel on, and normalised; windows are averaged; the
    result is resampled back to the scan.

    Attributes:
        kind: Name of this kind.
        orientation: Axis codes of the network's input (``Orientationd``); None: as the scan is stored.
        spacing_mm: Voxel size of the network's input (``Spacingd``); None: that of the scan.
        intensity: Normalisations, in order.
        overlap: Share of a window that its neighbour covers (``SlidingWindowInferer``).
        gaussian: Standard deviation of the weights of a window as a fraction of its sides (``mode:
            gaussian``, ``sigma_scale``); None: all weights are equal.
        fill: Value around scans that are smaller than a window (``cval``).
        restored: What is resampled to the scan (``Invertd``): ``probabilities`` if it comes after
            ``Activationsd``, otherwise ``logits``.
        nearest: Whether each voxel of the scan takes the nearest one instead of interpolating.
        threshold: Smallest probability of the only label; None: the most probable label, where the first
            channel is the background.
    """

    kind: Literal["bundle"]
    orientation: Annotated[str, Field(pattern="^[RLAPSI]{3}$")] | None = None
    spacing_mm: tuple[SpacingMm, SpacingMm, SpacingMm] | None = None
    intensity: Annotated[tuple[BundleIntensity, ...], Field(max_length=16)] = ()
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.25
    gaussian: Positive | None = None
    fill: Finite = 0.0
    restored: Literal["probabilities", "logits"] = "probabilities"
    nearest: bool = False
    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None

    @model_validator(mode="after")
    def _three_axes(self) -> BundlePipeline:
        axes = ("RL", "AP", "SI")
        if self.orientation and any(sum(c in pair for c in self.orientation) != 1 for pair in axes):
            raise ValueError(f"orientation {self.orientation!r} does not name three different axes")
        return self
