"""The recipe: everything that decides what a model learns and how it is applied, as one value.

A recipe holds concrete numbers only. It is read from YAML, validated once here, stored in the
header of every model file, and its digest is written beside every output.
"""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from medseg.errors import UsageError
from medseg.images.label import Label
from medseg.io.picture.masks import MaskCoding
from medseg.recipe.augmentation import (
    NNUNET,
    PRESETS,
    AnyAugment,
    Augment,
    NnunetAugment,
    nnunet_preset,
    preset,
)
from medseg.recipe.bundle_pipeline import BundlePipeline
from medseg.recipe.consistency import check_consistency
from medseg.recipe.context import Context
from medseg.recipe.loss import DiceBCE, DiceCE, Loss
from medseg.recipe.network import Network, UNet
from medseg.recipe.pipeline import (
    EnsembleMember,
    EnsemblePipeline,
    LungmaskPipeline,
    NnunetPipeline,
    Pipeline,
)
from medseg.recipe.prediction import CleaningStep, Postprocess, Predict
from medseg.recipe.preprocessing import (
    Crop,
    Intensity,
    Patch,
    Percentile,
    Prepare,
    ValueRange,
    Window,
    ZScore,
)
from medseg.recipe.section import Section, SpacingMm
from medseg.recipe.training import FineTune, Train
from medseg.system.safe_parsing import text_of, yaml_data
from medseg.system.validation_words import validation_words

__all__ = [
    "Augment",
    "CleaningStep",
    "Context",
    "Crop",
    "EnsembleMember",
    "EnsemblePipeline",
    "FineTune",
    "Intensity",
    "Loss",
    "LungmaskPipeline",
    "Network",
    "NnunetAugment",
    "NnunetPipeline",
    "Patch",
    "Percentile",
    "Pipeline",
    "Postprocess",
    "Predict",
    "Prepare",
    "Recipe",
    "SpacingMm",
    "Train",
    "ValueRange",
    "Window",
    "ZScore",
    "digest",
    "list_recipes",
]
_RECIPE_BYTES = 256 << 10


def _or_a_preset(schema: dict[str, Any]) -> None:
    kinds = {key: schema.pop(key) for key in ("oneOf", "discriminator")}
    schema["anyOf"] = [kinds, {"enum": [*PRESETS, NNUNET]}]


class Recipe(Section):
    """The complete configuration of one model. See the sections' own docstrings.

    Attributes:
        name: Name of the recipe and of the models trained with it.
        description: One line, shown by ``medseg recipe``.
        modality: The imaging modality of the scans: ``CT``, ``MR``, or ``picture`` for PNG, JPEG and TIFF.
        channels: Names of the scans of a case, in order.
        labels: The structures to segment.
        ignore_value: Voxels with this integer in a label map are unknown: they are left out of
            training and of every score. None if label maps have no such value.
        colours: For masks drawn in colours: the colour (``#rrggbb``) of each label by its name, and of
            ``background`` (black by default) and ``ignore`` (pixels that are unknown).
        prepare: Preprocessing from the scan to the network's input.
        patch: Size of the network's input.
        network: Architecture and size of the network.
        context: A coarse network that runs first and whose probabilities are further input channels of
            ``network``; None if there is only one network.
        pipeline: How another tool prepares scans and applies its networks, for models of that tool, or the
            models of an ensemble; None for medseg's own way.
        loss: The training loss.
        augment: Random changes of training patches: explicit numbers, or one of the presets ``none``,
            ``light``, ``full`` and ``nnunet``, which are replaced by their numbers when the recipe is read.
        train: The training schedule.
        fine_tune: For trainings that start from another model (``medseg train --from``): a lower learning
            rate for its weights, and frozen stages. None: all weights are trained alike.
        predict: Sliding-window inference.
        postprocess: Cleaning of the predicted mask.

    Example:
        >>> recipe = medseg.Recipe.read("lung_ct")
        >>> recipe.modality, recipe.prepare.spacing_mm
        ('CT', (2.0, 2.0, 3.0))
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=64)]
    description: str = ""
    modality: Literal["CT", "MR", "picture"]
    channels: Annotated[tuple[str, ...], Field(min_length=1, max_length=64)]
    labels: Annotated[tuple[Label, ...], Field(min_length=1, max_length=1024)]
    ignore_value: Annotated[int, Field(ge=1, le=65535)] | None = None
    colours: dict[str, str] = Field(default_factory=dict)
    prepare: Prepare
    patch: Patch
    network: Network = UNet()
    context: Context | None = None
    pipeline: Pipeline | None = None
    loss: Loss = DiceBCE()
    augment: Annotated[AnyAugment, Field(json_schema_extra=_or_a_preset)] = Augment()
    train: Train
    fine_tune: FineTune | None = None
    predict: Predict = Predict()
    postprocess: Postprocess = Postprocess()

    @model_validator(mode="wrap")
    @classmethod
    def _expanded(cls, data: Any, handler: ModelWrapValidatorHandler[Recipe]) -> Recipe:
        """The recipe with a preset's name in ``augment`` replaced by the preset's numbers."""
        if not isinstance(data, dict):
            return handler(data)
        train = data.get("train")
        like = NNUNET if isinstance(train, dict) and train.get("preset") == NNUNET else None
        name = data.get("augment", like)
        if not isinstance(name, str):
            return handler(data)
        known = next((each for each in PRESETS if each == name), None)
        if known is None and name != NNUNET:
            raise ValueError(f"augment is {name!r}: give {', '.join(PRESETS)}, {NNUNET}, or its fields")
        # The other sections are validated first, because a preset depends on them.
        rest = handler({**data, "augment": Augment()})
        chosen: Augment | NnunetAugment
        if known is None:
            chosen = nnunet_preset(
                size=rest.patch.size, spacing_mm=rest.prepare.spacing_mm, labels=rest.labels
            )
        else:
            chosen = preset(
                known, modality=rest.modality, intensity=rest.prepare.intensity, labels=rest.labels
            )
        return handler({**data, "augment": chosen})

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        check_consistency(self)
        return self

    @model_serializer(mode="wrap")
    def _without_absent_sections(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Recipes written before these sections existed keep their YAML and their digest.
        data: dict[str, Any] = handler(self)
        for section in ("context", "pipeline", "fine_tune"):
            if getattr(self, section) is None:
                data.pop(section, None)
        if not self.colours:
            data.pop("colours", None)
        return data

    def member_recipes(self) -> tuple[Recipe, ...]:
        """For a pipeline ``ensemble``: the recipe of each member; otherwise none."""
        if not isinstance(self.pipeline, EnsemblePipeline):
            return ()
        by_name = {label.name: label for label in self.labels}
        common = {"pipeline": None, "fine_tune": None, "augment": Augment(), "postprocess": Postprocess()}
        return tuple(
            self.model_copy(
                update={
                    **common,
                    "labels": tuple(by_name[name] for name in each.labels),
                    "prepare": each.prepare,
                    "patch": each.patch,
                    "network": each.network,
                    "predict": each.predict,
                }
            )
            for each in self.pipeline.members
        )

    @property
    def painted(self) -> tuple[Label, ...]:
        """The labels of a predicted mask: the recipe's, or the right and left parts of its one label."""
        return self.postprocess.divide or self.labels

    @property
    def coding(self) -> MaskCoding:
        """What pixels of mask pictures stand for."""
        return MaskCoding(self.colours, self.ignore_value)

    @property
    def spatial_dims(self) -> int:
        """Number of spatial dimensions of the network: 2 or 3."""
        return len(self.patch.size)

    @property
    def exclusive(self) -> bool:
        """Whether labels are mutually exclusive (softmax) rather than independent (one sigmoid each)."""
        return isinstance(self.loss, DiceCE)

    @property
    def in_channels(self) -> int:
        """Number of input channels of the network.

        Scan channels times slices per input; with a section ``context``, plus one per label.
        """
        probabilities = len(self.labels) if self.context else 0
        return len(self.channels) * (2 * self.patch.neighbours + 1) + probabilities

    @property
    def out_channels(self) -> int:
        """Number of output channels of the network.

        One per label; with a pipeline of exclusive labels the first one is the background.
        """
        return self.network_sizes()[0][3]

    def network_sizes(self) -> tuple[tuple[Network, int, int, int], ...]:
        """Each network of a fold: its settings, spatial dimensions, input channels and output channels.

        There are several only with a pipeline of several configurations or models, or a fill model.
        """
        labels, channels, dims = len(self.labels), self.in_channels, self.spatial_dims
        if self.pipeline is None:
            return ((self.network, dims, channels, labels),)
        if isinstance(self.pipeline, BundlePipeline):
            return ((self.network, dims, channels, labels + self.exclusive),)
        if isinstance(self.pipeline, LungmaskPipeline):
            counts = [labels, *([] if self.pipeline.fill_labels is None else [self.pipeline.fill_labels])]
            return tuple((self.network, dims, channels, count + 1) for count in counts)
        sizes: list[tuple[Network, int, int, int]] = []
        if isinstance(self.pipeline, EnsemblePipeline):
            for member, recipe in zip(self.pipeline.members, self.member_recipes(), strict=True):
                sizes += [*recipe.network_sizes()] * member.folds
            return tuple(sizes)
        for each in self.pipeline.configurations:
            inputs = channels + (labels if sizes and self.pipeline.combine == "cascade" else 0)
            outputs = (labels if each.labels is None else len(each.labels)) + self.exclusive
            sizes.append((each.network or self.network, len(each.spacing_mm), inputs, outputs))
        return tuple(sizes)

    @classmethod
    def read(cls, source: str | Path) -> Recipe:
        """The recipe in a YAML file, or the shipped recipe of that name.

        Raises:
            UsageError: there is no such recipe, it is not valid YAML, or a field is unknown,
                missing or invalid; the message names the field and the value.
        """
        path = Path(source)
        shipped_path = resources.files("medseg").joinpath("recipes", f"{source}.yaml")
        if str(source) in list_recipes():
            return cls.parse(shipped_path.read_text(encoding="utf-8"), where=str(source))
        try:
            text = text_of(path, most_bytes=_RECIPE_BYTES)
        except (OSError, ValueError) as error:
            cause = getattr(error, "strerror", None) or "it is not UTF-8 text"
            missing = isinstance(error, FileNotFoundError)
            raise UsageError(
                f"no such recipe: {cause}" if missing else f"the recipe cannot be read: {cause}",
                where=source,
                remedy=f"give a YAML file or one of: {', '.join(list_recipes())}",
                reason="recipe-not-found" if missing else "recipe-unreadable",
            ) from None
        return cls.parse(text, where=str(source))

    @classmethod
    def parse(cls, text: str, *, where: str = "recipe") -> Recipe:
        """The recipe in YAML (or JSON) text; ``where`` names the source in errors."""
        try:
            data = yaml_data(text)
        except ValueError as error:
            raise UsageError(
                f"not valid YAML: {error}", where=where, remedy="correct the syntax", reason="recipe-yaml"
            ) from None
        return cls.checked(data, where=where)

    @classmethod
    def checked(cls, data: object, *, where: str = "recipe") -> Recipe:
        """The recipe in plain data, as parsed from YAML or JSON."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            first = error.errors()[0]
            place = [*first["loc"]]
            if place[:2] == ["augment", "medseg"]:  # the kind of a section that usually names none
                del place[1]
            field = ".".join(str(part) for part in place) or "recipe"
            seen = "" if first["type"] in ("missing", "value_error") else f" (got {first['input']!r:.60})"
            words = validation_words(first)
            more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
            raise UsageError(
                f"{field}: {words}{seen}{more}",
                where=where,
                remedy="correct this field; `medseg recipe --schema` lists all of them",
                reason="recipe-field",
            ) from None

    def yaml(self) -> str:
        """The recipe as YAML text; :meth:`parse` reads it back to an equal recipe."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of the recipe's content: equal recipes have equal digests."""
        return digest(self.model_dump(mode="json"))

    @staticmethod
    def json_schema() -> dict[str, Any]:
        """The JSON schema of recipes."""
        return Recipe.model_json_schema()


def list_recipes() -> tuple[str, ...]:
    """Names of the recipes shipped with the package.

    Example:
        >>> "lung_ct" in medseg.list_recipes()
        True
    """
    folder = resources.files("medseg").joinpath("recipes")
    return tuple(sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")))


def describe_recipes() -> dict[str, str]:
    """The description of each shipped recipe, by name.

    Example:
        >>> sorted(medseg.describe_recipes()) == sorted(medseg.list_recipes())
        True
    """
    return {name: Recipe.read(name).description for name in list_recipes()}


def digest(data: object) -> str:
    """Hexadecimal SHA-256 of plain data, independent of the order of keys."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
