"""What commands write beside their result, and what they say of it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from medseg.errors import UsageError

if TYPE_CHECKING:
    from medseg.volume import Mask


RESEARCH = "Research use only. Not a medical device."


def spare_inputs(target: Path, scans: list[Path]) -> None:
    """Refuses to write a mask over the scan it is made from."""
    # Not Path.resolve, which raises where a link leads to itself.
    if os.path.realpath(target) in {os.path.realpath(scan) for scan in scans}:
        raise UsageError(
            "the output is the scan itself", where=target, remedy="choose another name", reason="usage"
        )


@contextmanager
def telling_of_older(target: Path) -> Iterator[None]:
    """Says, when the block fails, that what stands at ``target`` is not its result."""
    older = target.exists()
    try:
        yield
    except BaseException:
        if older:
            print(f"warning: {target} is of an earlier run and was left as it is", file=sys.stderr)
        raise


def sidecar(target: Path) -> Path:
    """``mask.json`` beside ``mask.nii.gz``."""
    stem = target.name
    for suffix in (".gz", target.with_name(stem.removesuffix(".gz")).suffix):
        stem = stem.removesuffix(suffix)
    return target.with_name(f"{stem}.json")


class Made(Protocol):
    """What made a mask: a :class:`medseg.methods.Method`, or what tells the same."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def digest(self) -> str: ...  # noqa: D102

    @property
    def engine(self) -> str: ...  # noqa: D102


def facts_of(mask: Mask, by: Made) -> dict[str, Any]:
    """What stands beside every mask: who made it, labels, volumes and grid."""
    from importlib.metadata import version

    return {
        "research_use_only": RESEARCH,
        "medseg": version("medseg"),
        "recipe": by.name,
        "model_sha256": by.digest,
        "engine": by.engine,
        **meaning_of(mask),
    }


def meaning_of(mask: Mask) -> dict[str, Any]:
    """Labels, volumes and grid of a mask."""
    return {
        "labels": {label.name: list(label.values) for label in mask.labels},
        "volumes_ml": {name: round(ml, 4) for name, ml in mask.volumes_ml().items()},
        "shape": list(mask.grid.shape),
        "affine": mask.grid.affine.tolist(),
    }


def write_json(path: Path, facts: dict[str, Any]) -> None:
    """Writes plain data, replacing the file whole."""
    from medseg.io.atomic import replacing

    with replacing(path) as temporary:
        temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
