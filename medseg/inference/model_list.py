"""The models that can be chosen by name, with what each of them is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from medseg.errors import MedsegError
from medseg.inference.exported_graphs import check_weights
from medseg.inference.model_file import ModelFile
from medseg.inference.model_files import find, names, shipped
from medseg.inference.registry import DEFAULT
from medseg.inference.threshold_segmenter import ThresholdSegmenter


@dataclass(frozen=True)
class ListedModel:
    """A row of :func:`list_models`.

    Attributes:
        name: The value to pass as ``model=``.
        default: Whether it is used if no model is named.
        shipped: Whether it comes with medseg.
        path: The model file; None for ``threshold``, which needs none.
        modality: Modality of its scans, such as ``CT``; empty for a file that is refused.
        labels: The integer written for each label.
        description: One sentence about the model.
        licence: Licence of the weights.
        sha256: Hexadecimal SHA-256 of the file.
        refused: The reason code if the file cannot be used; otherwise None.
        problem: What is wrong with a refused file.

    Example:
        >>> [model.name for model in medseg.list_models() if model.default]
        ['lung_ct_context']
    """

    name: str
    default: bool = False
    shipped: bool = False
    path: Path | None = None
    modality: str = ""
    labels: Mapping[str, int] = field(default_factory=dict)
    description: str = ""
    licence: str = ""
    sha256: str = ""
    refused: str | None = None
    problem: str | None = None

    @property
    def megabytes(self) -> float | None:
        """Size of the file; None if there is no file."""
        return None if self.path is None else round(self.path.stat().st_size / 1e6, 2)

    def to_json(self) -> dict[str, object]:
        """The row as plain data, without the fields that do not apply."""
        row: dict[str, object] = {"name": self.name, "default": self.default, "shipped": self.shipped}
        if self.path is not None:
            row |= {"path": str(self.path), "megabytes": self.megabytes}
        if self.refused is not None:
            return row | {"refused": self.refused, "problem": self.problem}
        row |= {"modality": self.modality, "labels": dict(self.labels), "description": self.description}
        return row | {"licence": self.licence, "sha256": self.sha256}


def list_models() -> tuple[ListedModel, ...]:
    """The models shipped with medseg, those in ``~/.cache/medseg/models``, and ``threshold``.

    A file that cannot be used is listed with the reason. Nothing is downloaded.

    Example:
        >>> [model.name for model in medseg.list_models() if model.default]
        ['lung_ct_context']
    """
    plain = ThresholdSegmenter()
    without_network = ListedModel(
        plain.name,
        shipped=True,
        modality="CT",
        labels={label.name: label.value for label in plain.labels},
        description="Right and left lung by thresholding, without a network; fails on diseased lungs.",
        licence="Apache-2.0",
        sha256=plain.digest,
    )
    return (*map(_info, names()), without_network)


def _info(name: str) -> ListedModel:
    path, ours = find(name), name in shipped()
    try:
        model = ModelFile.read(path)
        if not ours:  # a shipped model fits, and not every one comes with its graph
            check_weights(model)
    except MedsegError as error:
        return ListedModel(name, name == DEFAULT, ours, path, refused=error.reason, problem=error.problem)
    return ListedModel(
        name,
        name == DEFAULT,
        ours,
        path,
        model.recipe.modality,
        {label.name: label.value for label in model.recipe.painted},
        model.recipe.description,
        model.provenance.get("licence", "Apache-2.0" if ours else "unknown"),
        model.digest,
    )
