"""The recipe's sections ``predict`` and ``postprocess``: from the network to the mask."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from medseg.images.label import Label
from medseg.recipe.section import Count, Fraction, NotNegative, Section, Size


class Predict(Section):
    """Sliding-window inference.

    Attributes:
        overlap: Fraction of a window that overlaps with its neighbour; 0.5 as in nnU-Net.
        window_batch: Number of windows in one batch.
        whole_planes: 2D: one window as large as the plane, instead of windows of the patch's size. This
            avoids seams and is cheaper if planes are a little larger than a patch. Only for networks with
            batch normalisation or none, whose output does not depend on the size of the window.
        threshold: Smallest probability at which a voxel belongs to a label.
    """

    overlap: Annotated[float, Field(ge=0, le=0.9)] = 0.5
    window_batch: Size = 1
    whole_planes: bool = False
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5


class CleaningStep(Section):
    """One step of cleaning the finished mask, of one label or of several labels as if they were one.

    Removed voxels become background, or the label around them: a lesion ``[2]`` within a lung ``[1, 2]``
    becomes lung. Holes are filled only where the mask has background or the label around.

    Attributes:
        labels: Names of the labels; several are cleaned as one.
        keep_components: Number of largest components to keep; None keeps all.
        fill_holes: Whether to fill enclosed holes, before components are removed.
        min_volume_ml: Components smaller than this are removed.
        min_share: Components smaller than this fraction of the largest one are removed.
    """

    labels: Annotated[tuple[str, ...], Field(min_length=1, max_length=1024)]
    keep_components: Count | None = None
    fill_holes: bool = False
    min_volume_ml: NotNegative = 0.0
    min_share: Fraction = 0.0

    @model_validator(mode="after")
    def _does_something(self) -> CleaningStep:
        if len(set(self.labels)) < len(self.labels):
            raise ValueError(f"labels {list(self.labels)} must be different")
        if not (self.fill_holes or self.removes):
            raise ValueError("give keep_components, fill_holes, min_volume_ml or min_share")
        if self.fill_holes and len(self.labels) > 1:
            raise ValueError("fill_holes needs one label: several do not say which of them fills a hole")
        return self

    @property
    def removes(self) -> bool:
        """Whether components are removed."""
        return self.keep_components is not None or self.min_volume_ml > 0 or self.min_share > 0

    def __str__(self) -> str:
        """The step in words, such as ``liver: keep_components 1``."""
        given = self.model_dump(exclude_defaults=True, exclude={"labels"})
        rules = ", ".join(name if value is True else f"{name} {value:g}" for name, value in given.items())
        return f"{' + '.join(self.labels)}: {rules}"


class Postprocess(Section):
    """Cleaning of each label on the grid of the scan.

    Attributes:
        divide: The labels of the right and the left lung, if the recipe's one label covers both. The mask
            is divided into them before each is cleaned, see :func:`medseg.inference.lungs.split_left_right`.
            A network that need not distinguish sides learns from far fewer patients and cannot exchange them.
        keep_components: Number of largest components to keep of each label; None keeps all.
        fill_holes: Whether to fill enclosed holes.
        min_volume_ml: Components smaller than this are removed.
        min_share: Components smaller than this fraction of the label's largest one are removed. Useful
            if their number is unknown, because the field of view may cut an organ into parts.
        steps: Further cleaning of the finished mask, step by step. A cross-validation chooses them.
    """

    divide: tuple[Label, Label] | None = None
    keep_components: Count | None = None
    fill_holes: bool = False
    min_volume_ml: NotNegative = 0.0
    min_share: Fraction = 0.0
    steps: Annotated[tuple[CleaningStep, ...], Field(max_length=4096)] = ()

    @model_serializer(mode="wrap")
    def _without_steps(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Recipes written before steps existed keep their YAML and their digest.
        data: dict[str, Any] = handler(self)
        if not self.steps:
            data.pop("steps", None)
        return data

    @property
    def rules(self) -> Postprocess:
        """The same without steps."""
        return self.model_copy(update={"steps": ()})
