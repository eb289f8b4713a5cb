"""Options of a training that are not part of its recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from medseg.inference.model import Model
from medseg.training.provenance import Record


@dataclass(frozen=True)
class TrainingOptions:
    """Settings of a training that are not part of its recipe.

    Attributes:
        cache: Folder of prepared cases; by default ``cache`` in the training's folder.
        max_seconds: Time limit in seconds, including earlier parts of a resumed training. Training stops
            before an epoch that would exceed it. The first epoch always runs.
        track: Additional trackers: ``wandb``, ``mlflow``.
        repeats: Record of a training to repeat, from :func:`medseg.training.provenance.read`. The data must
            be unchanged, and training ends after the same epoch.
        accept_changes: Resume although the number of processes or the kind of device has changed. The
            result then differs from that of an uninterrupted training; the change is recorded.
        source: Model to start from instead of random weights: a model, its file, or a name of
            :func:`medseg.list_models`. Labels and channels may differ; the training's folder keeps a copy.

    Example:
        >>> medseg.TrainingOptions(max_seconds=1200).track
        ()
    """

    cache: Path | None = None
    max_seconds: float | None = None
    track: tuple[str, ...] = ()
    repeats: Record | None = None
    accept_changes: bool = False
    source: Model | str | Path | None = None
