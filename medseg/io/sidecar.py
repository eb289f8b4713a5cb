"""The sidecar of a mask: its origin, labels, volumes and grid. Never patient data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

from medseg.images.volume import PICTURE, Mask
from medseg.system.atomic_write import replacing
from medseg.system.notices import RESEARCH
from medseg.system.own_version import own_version

LABELS = "labels.json"
"""File with the names and values of the labels of all masks in a folder, if they have no sidecars."""


class Made(Protocol):
    """The origin of a mask: a :class:`medseg.inference.registry.SegmentationMethod` or its identity."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def digest(self) -> str: ...  # noqa: D102

    @property
    def engine(self) -> str: ...  # noqa: D102


def sidecar_path(target: Path) -> Path:
    """``mask.json`` beside ``mask.nii.gz``."""
    stem = target.name
    for suffix in (".gz", target.with_name(stem.removesuffix(".gz")).suffix):
        stem = stem.removesuffix(suffix)
    return target.with_name(f"{stem}.json")


def read_sidecar(mask: Path) -> dict[str, Any] | None:
    """The content of the sidecar of a mask; None if there is none, or it was not written by medseg."""
    return _content(sidecar_path(mask))


def is_own_sidecar(path: Path) -> bool:
    """Whether a ``.json`` is the sidecar of a mask that medseg wrote."""
    return _content(path) is not None


def _content(path: Path) -> dict[str, Any] | None:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return facts if isinstance(facts, dict) and {"labels", "shape", "affine"} <= facts.keys() else None


def facts_of(mask: Mask, by: Made) -> dict[str, Any]:
    """The origin of a mask together with :func:`meaning_of` it."""
    return {
        "research_use_only": RESEARCH,
        "medseg": own_version(),
        "recipe": by.name,
        "model_sha256": by.digest,
        "engine": by.engine,
        **meaning_of(mask),
    }


def meaning_of(mask: Mask) -> dict[str, Any]:
    """Labels, volumes and grid of a mask, and the pixels of each label if its scan is a picture."""
    return {
        "labels": {label.name: list(label.values) for label in mask.labels},
        "volumes_ml": {name: round(ml, 4) for name, ml in mask.volumes_ml().items()},
        **({"pixels": mask.pixels()} if mask.source.format == PICTURE else {}),
        "shape": list(mask.grid.shape),
        "affine": mask.grid.affine.tolist(),
    }


def write_json(path: Path, facts: dict[str, Any]) -> None:
    """Writes plain data as JSON, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
