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
from medseg.images.volume import check_labels
from medseg.io.picture.colours import colour_table
from medseg.io.picture.masks import MaskCoding
from medseg.recipe.augmentation import PRESETS, Augment, misfit, preset
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
    schema["anyOf"] = [{"$ref": schema.pop("$ref")}, {"enum": list(PRESETS)}]


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
            ``light`` and ``full``, which are replaced by their numbers when the recipe is read.
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
    augment: Annotated[Augment, Field(json_schema_extra=_or_a_preset)] = Augment()
    train: Train
    fine_tune: FineTune | None = None
    predict: Predict = Predict()
    postprocess: Postprocess = Postprocess()

    @model_validator(mode="wrap")
    @classmethod
    def _expanded(cls, data: Any, handler: ModelWrapValidatorHandler[Recipe]) -> Recipe:
        """The recipe with a preset's name in ``augment`` replaced by the preset's numbers."""
        name = data.get("augment") if isinstance(data, dict) else None
        if not isinstance(name, str):
            return handler(data)
        if name not in PRESETS:
            raise ValueError(f"augment is {name!r}: give {', '.join(PRESETS)}, or its fields")
        # The other sections are validated first, because a preset depends on them.
        rest = handler({**data, "augment": Augment()})
        chosen = preset(name, modality=rest.modality, intensity=rest.prepare.intensity, labels=rest.labels)
        return handler({**data, "augment": chosen})

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        try:
            check_labels(self.labels)
        except UsageError as error:
            raise ValueError(error.problem) from None
        if any(self.ignore_value in label.values for label in self.labels):
            raise ValueError(f"ignore_value {self.ignore_value} is also a value of a label")
        if self.colours:
            try:
                colour_table(self.colours, self.labels, self.ignore_value)
            except UsageError as error:
                raise ValueError(error.problem) from None
        problem = misfit(
            self.augment,
            labels=self.labels,
            intensity=self.prepare.intensity,
            spatial_dims=self.spatial_dims,
        )
        if problem:
            raise ValueError(problem)
        if self.modality == "CT" and not isinstance(self.prepare.intensity, Window):
            raise ValueError("CT intensities have an absolute unit (HU): use intensity kind 'window'")
        unknown = sorted(set(self.loss.class_weights) - {label.name for label in self.labels})
        if unknown:
            raise ValueError(f"loss.class_weights names {unknown[0]!r}, which is not a label of the recipe")
        if not any(self.loss.class_weights.get(label.name, 1.0) for label in self.labels):
            raise ValueError("loss.class_weights are 0 for every label: nothing would be learned")
        if self.exclusive and self.predict.threshold != Predict().threshold:
            raise ValueError(
                f"predict.threshold {self.predict.threshold} has no effect with loss dice_ce, which picks "
                "the most probable label: remove it"
            )
        values = [value for label in self.labels for value in label.values]
        if self.exclusive and len(set(values)) < len(values):
            raise ValueError("loss dice_ce needs mutually exclusive labels, but these labels share values")
        if self.predict.whole_planes:
            self._check_whole_planes()
        if self.context:
            self._check_context(self.context)
        if isinstance(self.pipeline, EnsemblePipeline):
            self._check_ensemble(self.pipeline)
        elif self.pipeline:
            self._check_pipeline(self.pipeline)
        if self.postprocess.divide:
            self._check_divided(self.postprocess.divide)
        self._check_steps(self.postprocess.steps)
        problem = self.network.misfit(self.spatial_dims)
        if problem:
            raise ValueError(problem)
        self._check_patch()
        return self

    def _check_patch(self) -> None:
        size, factors = self.patch.size, self.network.divisors(self.spatial_dims)
        if any(n % factor for n, factor in zip(size, factors, strict=True)):
            lower = [max(n // factor, 1) * factor for n, factor in zip(size, factors, strict=True)]
            upper = [-(-n // factor) * factor for n, factor in zip(size, factors, strict=True)]
            multiple = factors[0] if len(set(factors)) == 1 else list(factors)
            raise ValueError(
                f"patch.size {list(size)} does not fit network {self.network.kind}: each "
                f"number must be a multiple of {multiple}, such as {lower} or {upper}"
            )
        if self.network.normalised and size == factors:
            raise ValueError(
                f"patch.size {list(size)} shrinks to one voxel, which the normalisation of network "
                f"{self.network.kind} cannot handle: make at least one number {2 * min(factors)} or more"
            )

    def _check_whole_planes(self) -> None:
        if self.spatial_dims != 2:
            raise ValueError("predict.whole_planes needs a 2D patch (patch.size with two numbers)")
        norm = getattr(self.network, "norm", "instance")
        if norm not in ("batch", "none"):
            raise ValueError(
                f"predict.whole_planes needs network.norm batch or none: with norm {norm} the output depends "
                "on the size of the plane"
            )

    def _check_context(self, context: Context) -> None:
        if self.modality != "CT" or [label.side for label in self.labels] != ["right", "left"]:
            raise ValueError(
                "context is only for lungs on CT: it needs labels with side right and left, in this order"
            )
        if self.spatial_dims != 3 or not self.exclusive or len(self.channels) != 1:
            raise ValueError("context needs one channel, a 3D patch, and loss dice_ce")
        factor = context.network.divisor
        if any(n % factor for n in context.size):
            raise ValueError(f"context.size {list(context.size)}: each must be a multiple of {factor}")

    def _check_pipeline(self, pipeline: NnunetPipeline | LungmaskPipeline) -> None:
        if (
            self.predict != Predict()
            or self.postprocess.rules != Postprocess()
            or self.context
            or self.prepare.crop
        ):
            raise ValueError(
                "with a pipeline, predict and postprocess (but for its steps) keep their defaults, and there "
                "is neither context nor prepare.crop: the pipeline decides everything"
            )
        if self.patch.neighbours:
            raise ValueError("with a pipeline, patch.neighbours must be 0")
        if isinstance(pipeline, LungmaskPipeline):
            if self.modality != "CT" or len(self.channels) != 1 or not self.exclusive:
                raise ValueError("pipeline lungmask needs modality CT, one channel, and loss dice_ce")
            if self.patch.size != (256, 256):
                raise ValueError(
                    f"pipeline lungmask needs patch.size [256, 256], not {list(self.patch.size)}"
                )
            return
        names = {label.name for label in self.labels}
        for each in pipeline.configurations:
            size = each.patch_size or self.patch.size
            if len(size) != len(each.spacing_mm):
                raise ValueError(
                    f"configuration {each.name!r}: spacing_mm has {len(each.spacing_mm)} numbers, but the "
                    f"patch has {len(size)}"
                )
            if len(each.intensity) != len(self.channels):
                raise ValueError(
                    f"configuration {each.name!r} has {len(each.intensity)} intensities, but there are "
                    f"{len(self.channels)} channels"
                )
            unknown = sorted(set(each.labels or ()) - names)
            if unknown:
                raise ValueError(f"configuration {each.name!r} names {unknown[0]!r}, which is not a label")
        if (pipeline.combine != "mean" or len(pipeline.configurations) > 1) and not self.exclusive:
            raise ValueError(
                f"pipeline.combine {pipeline.combine} of several configurations needs exclusive labels: loss "
                "dice_ce, not regions"
            )

    def _check_ensemble(self, pipeline: EnsemblePipeline) -> None:
        if self.context:
            raise ValueError("pipeline ensemble cannot be used with context")
        names = sorted(label.name for label in self.labels)
        for number, each in enumerate(pipeline.members):
            if sorted(each.labels) != names:
                raise ValueError(f"pipeline.members[{number}].labels {list(each.labels)} must be {names}")
        for recipe in self.member_recipes():
            Recipe.model_validate(recipe.model_dump())

    def _check_divided(self, parts: tuple[Label, Label]) -> None:
        if len(self.labels) > 1:
            raise ValueError(f"postprocess.divide needs exactly one label, but there are {len(self.labels)}")
        if [part.side for part in parts] != ["right", "left"]:
            raise ValueError("postprocess.divide needs two labels, with side right and left, in this order")
        values = sorted(value for part in parts for value in part.values)
        if values != sorted(self.labels[0].values):
            raise ValueError(
                f"postprocess.divide has the values {values}, but label {self.labels[0].name} has "
                f"{sorted(self.labels[0].values)}: they must be the same"
            )

    def _check_steps(self, steps: tuple[CleaningStep, ...]) -> None:
        if steps and self.context:
            raise ValueError("postprocess.steps cannot be used with context: lung_ct decides its masks")
        names = {label.name for label in self.painted}
        for number, step in enumerate(steps):
            unknown = sorted(set(step.labels) - names)
            if unknown:
                raise ValueError(f"postprocess.steps[{number}] names {unknown[0]!r}, which is not a label")

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
            field = ".".join(str(part) for part in first["loc"]) or "recipe"
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
