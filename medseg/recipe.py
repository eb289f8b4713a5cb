"""The recipe: everything that decides what a model learns and how it is applied, as one value.

A recipe holds concrete numbers only. It is read from YAML, checked here once, carried in the
header of every model file, and its digest stands beside every output.
"""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from medseg.document import text_of, yaml_data
from medseg.errors import UsageError
from medseg.label import Label
from medseg.volume import check_labels

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]

# Bounds no sensible recipe meets: a recipe in a model file or from elsewhere must not be able to
# ask for more memory than any machine has before anything else can refuse it.
Size = Annotated[int, Field(ge=1, le=4096)]
SpacingMm = Annotated[float, Field(ge=0.01, le=100)]  # the finest micro-CT; a scan in a few voxels
_PATCH_VOXELS = 512**3
_RECIPE_BYTES = 256 << 10


class Part(BaseModel):
    """A section of the recipe: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Window(Part):
    """CT: ``low..high`` HU becomes 0..1, values outside are clipped."""

    kind: Literal["window"] = "window"
    low_hu: Finite
    high_hu: Finite

    @model_validator(mode="after")
    def _ordered(self) -> Window:
        if self.low_hu >= self.high_hu:
            raise ValueError(f"low_hu {self.low_hu:g} must lie below high_hu {self.high_hu:g}")
        return self


class Percentile(Part):
    """MR: the ``low`` and ``high`` percentiles of the cropped scan become 0 and 1, clipped."""

    kind: Literal["percentile"] = "percentile"
    low: Annotated[float, Field(ge=0, lt=100)] = 0.5
    high: Annotated[float, Field(gt=0, le=100)] = 99.5

    @model_validator(mode="after")
    def _ordered(self) -> Percentile:
        if self.low >= self.high:
            raise ValueError(f"percentile low {self.low:g} must lie below high {self.high:g}")
        return self


class ZScore(Part):
    """MR: mean 0 and standard deviation 1 over the cropped scan (over its non-zero voxels)."""

    kind: Literal["zscore"] = "zscore"
    nonzero: bool = True


Intensity = Annotated[Window | Percentile | ZScore, Field(discriminator="kind")]


class Crop(Part):
    """Foreground crop: the box of voxels above ``above`` (in source units, HU for CT), widened."""

    above: Finite
    margin_mm: NotNegative = 10.0


class Prepare(Part):
    """From the scan to the network's input: orient, resample, crop, normalise; in this order.

    Attributes:
        orientation: Axis codes the arrays are brought to.
        spacing_mm: Voxel size of the prepared grid along its three axes.
        crop: Foreground crop, or None to keep the whole scan.
        intensity: How intensities are normalised.
    """

    orientation: Literal["RAS"] = "RAS"
    spacing_mm: tuple[SpacingMm, SpacingMm, SpacingMm]
    crop: Crop | None = None
    intensity: Intensity


class Patch(Part):
    """What the network sees at once.

    Attributes:
        size: Two numbers for 2D slices (X, Y) across the third axis, three for 3D patches.
        neighbours: 2D only: slices on *each* side given as further input channels.
    """

    size: tuple[Size, Size] | tuple[Size, Size, Size]
    neighbours: Annotated[int, Field(ge=0, le=8)] = 0

    @model_validator(mode="after")
    def _neighbours_are_2d(self) -> Patch:
        if self.neighbours and len(self.size) == 3:
            raise ValueError("neighbours are for 2D slices; a 3D patch already holds them")
        if prod(self.size) > _PATCH_VOXELS:
            raise ValueError(f"a patch of {prod(self.size)} voxels; at most {_PATCH_VOXELS} are possible")
        return self


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


class Loss(Part):
    """The training loss; weights of its two parts.

    Dice + binary cross-entropy on one sigmoid channel a label, as in nnU-Net's region
    training (Isensee et al. 2021), each with weight 1.
    """

    kind: Literal["dice_bce"] = "dice_bce"
    dice_weight: NotNegative = 1.0
    bce_weight: NotNegative = 1.0


class Augment(Part):
    """Random changes of training patches; 0 switches each of them off.

    Attributes:
        flip_axes: Prepared axes (0 R-L, 1 A-P, 2 S-I) along which half of the patches are flipped.
        rotate_degrees: Largest rotation in the axial plane (2D) or about each axis (3D).
        scale: Largest relative change of size.
        noise_sd: Largest standard deviation of Gaussian noise, in normalised intensity.
        gamma: Largest relative change of the exponent of intensity in 0..1.
        brightness: Largest shift of normalised intensity.
        contrast: Largest relative change of contrast.
        probability: How often each of these is applied.
    """

    flip_axes: tuple[Literal[0, 1, 2], ...] = ()
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 15.0
    scale: Annotated[float, Field(ge=0, lt=0.9)] = 0.1
    noise_sd: NotNegative = 0.05
    gamma: Annotated[float, Field(ge=0, lt=1)] = 0.2
    brightness: NotNegative = 0.05
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.1
    probability: Fraction = 0.5


class Train(Part):
    """The training schedule.

    Attributes:
        epochs: Longest training, in epochs.
        steps_per_epoch: Optimiser steps in an epoch.
        batch_size: Patches a step.
        foreground_fraction: Share of patches centred on a voxel of a (randomly drawn) label.
        learning_rate: Peak learning rate of AdamW; reached over a tenth of the steps, then
            down along a cosine.
        weight_decay: AdamW weight decay.
        gradient_clip: Largest norm of the gradient; 12 as in nnU-Net.
        validate_every: Epochs between validations with the whole sliding window.
        patience: Validations without a better Dice before training stops early.
        seed: Decides initial weights, order, patches and augmentation.
    """

    epochs: Count
    steps_per_epoch: Count
    batch_size: Size
    foreground_fraction: Fraction = 0.5
    learning_rate: Positive = 1e-3
    weight_decay: NotNegative = 1e-4
    gradient_clip: Positive = 12.0
    validate_every: Count = 5
    patience: Count = 10
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0


class Predict(Part):
    """The sliding window.

    Attributes:
        overlap: Share of a window that its neighbour covers as well; 0.5 as in nnU-Net.
        window_batch: Windows run through the network at once.
        threshold: A voxel belongs to a label where its probability is at least this.
    """

    overlap: Annotated[float, Field(ge=0, le=0.9)] = 0.5
    window_batch: Size = 1
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5


class Postprocess(Part):
    """Cleaning of each label on the source grid.

    Attributes:
        keep_components: Keep this many largest components of each label; None keeps all.
        fill_holes: Fill holes that do not reach the outside.
        min_volume_ml: Remove components smaller than this.
    """

    keep_components: Count | None = None
    fill_holes: bool = False
    min_volume_ml: NotNegative = 0.0


class Recipe(Part):
    """The whole configuration of one model. See the sections' own docstrings."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=64)]
    description: str = ""
    modality: Literal["CT", "MR"]
    channels: Annotated[tuple[str, ...], Field(min_length=1, max_length=64)]
    labels: Annotated[tuple[Label, ...], Field(min_length=1, max_length=1024)]
    prepare: Prepare
    patch: Patch
    network: Network = Network()
    loss: Loss = Loss()
    augment: Augment = Augment()
    train: Train
    predict: Predict = Predict()
    postprocess: Postprocess = Postprocess()

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        try:
            check_labels(self.labels)
        except UsageError as error:
            raise ValueError(error.problem) from None
        sided = [label.name for label in self.labels if label.side]
        if sided and 0 in self.augment.flip_axes:
            raise ValueError(f"augment.flip_axes has 0 (R-L), which would exchange the sides of {sided}")
        if self.modality == "CT" and not isinstance(self.prepare.intensity, Window):
            raise ValueError("CT has absolute units: use intensity kind 'window'")
        factor = 2 ** (len(self.network.widths) - 1)
        wrong = [n for n in self.patch.size if n % factor]
        if wrong:
            lower = [max(n // factor, 1) * factor for n in self.patch.size]
            upper = [-(-n // factor) * factor for n in self.patch.size]
            raise ValueError(
                f"patch.size {list(self.patch.size)} does not survive {len(self.network.widths) - 1} "
                f"poolings: each number must be a multiple of {factor}, such as {lower} or {upper}"
            )
        if self.network.norm != "none" and all(n == factor for n in self.patch.size):
            raise ValueError(
                f"patch.size {list(self.patch.size)} shrinks to one voxel, which {self.network.norm} "
                f"normalisation cannot use: make one number at least {2 * factor}"
            )
        return self

    @property
    def spatial_dims(self) -> int:
        """2 for slices, 3 for patches."""
        return len(self.patch.size)

    @property
    def in_channels(self) -> int:
        """Input channels of the network: scan channels times slices seen at once."""
        return len(self.channels) * (2 * self.patch.neighbours + 1)

    @classmethod
    def read(cls, source: str | Path) -> Recipe:
        """The recipe of a YAML file, or the shipped one of that name.

        Raises:
            UsageError: no such recipe, not YAML, or a field is unknown, missing or wrong;
                the message names the field and the value.
        """
        path = Path(source)
        shipped_path = resources.files("medseg").joinpath("recipes", f"{source}.yaml")
        if str(source) in shipped():
            return cls.parse(shipped_path.read_text(encoding="utf-8"), where=str(source))
        try:
            text = text_of(path, most_bytes=_RECIPE_BYTES)
        except (OSError, ValueError) as error:
            told = getattr(error, "strerror", None) or "it is not UTF-8 text"
            missing = isinstance(error, FileNotFoundError)
            raise UsageError(
                f"no such recipe: {told}" if missing else f"the recipe cannot be read: {told}",
                where=source,
                remedy=f"give a YAML file or one of: {', '.join(shipped())}",
                reason="recipe-not-found" if missing else "recipe-unreadable",
            ) from None
        return cls.parse(text, where=str(source))

    @classmethod
    def parse(cls, text: str, *, where: str = "recipe") -> Recipe:
        """The recipe of YAML (or JSON) text. ``where`` names it in errors."""
        try:
            data = yaml_data(text)
        except ValueError as error:
            raise UsageError(
                f"not valid YAML: {error}", where=where, remedy="correct it there", reason="recipe-yaml"
            ) from None
        return cls.checked(data, where=where)

    @classmethod
    def checked(cls, data: object, *, where: str = "recipe") -> Recipe:
        """The recipe of plain data, as YAML or JSON gives it."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "recipe"
            seen = "" if first["type"] in ("missing", "value_error") else f" (got {first['input']!r:.60})"
            more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
            raise UsageError(
                f"{field}: {first['msg'].removeprefix('Value error, ')}{seen}{more}",
                where=where,
                remedy="correct this field; `medseg recipe --schema` lists all of them",
                reason="recipe-field",
            ) from None

    def yaml(self) -> str:
        """The recipe as YAML text; :meth:`parse` reads it back to an equal recipe."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of the recipe's content; equal recipes have equal digests."""
        return digest(self.model_dump(mode="json"))

    @staticmethod
    def json_schema() -> dict[str, Any]:
        """The JSON schema of a recipe."""
        return Recipe.model_json_schema()


def shipped() -> tuple[str, ...]:
    """Names of the recipes in the package."""
    folder = resources.files("medseg").joinpath("recipes")
    return tuple(sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")))


def digest(data: object) -> str:
    """Hexadecimal SHA-256 of plain data, independent of key order."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
