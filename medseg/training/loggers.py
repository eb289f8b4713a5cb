"""The table of trackers, which record the curves and pictures of a training beside ``history.csv``.

Nothing leaves the machine: W&B runs offline (``wandb sync`` uploads a run on request), and MLflow writes
into a database file in the training's folder. Both report errors or usage to their makers unless an
environment variable forbids it. The command line sets that variable; in Python the user does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from medseg.errors import ResourceError, UsageError
from medseg.recipe import Recipe

Picture = npt.NDArray[np.uint8]


NO_REPORTS = {"wandb": ("WANDB_ERROR_REPORTING", "false"), "mlflow": ("MLFLOW_DISABLE_TELEMETRY", "true")}
"""Environment variable and value that switch off a tracker's usage reports, by tracker."""


def check_trackers(names: Sequence[str]) -> None:
    """Refuses trackers that are unknown, or that would send usage reports to their maker.

    Only an environment variable can switch these reports off, and the environment belongs to the user.

    Raises:
        UsageError: no such tracker (``tracker``), or its environment variable in `NO_REPORTS` is not set to
            any value (``tracker-reports``).
    """
    for tracker in names:
        if tracker not in REGISTRY:
            raise UsageError(
                f"there is no tracker {tracker!r}",
                where="track",
                remedy=f"give one of: {', '.join(REGISTRY)}",
                reason="tracker",
            )
        name, value = NO_REPORTS.get(tracker, ("", ""))
        if name and name not in os.environ:
            raise UsageError(
                f"{tracker} reports errors or usage to its maker unless {name} is set",
                where="track",
                remedy=f"set the environment variable {name}={value} first, as `medseg train` does",
                reason="tracker-reports",
            )


def loggers(names: Sequence[str], folder: Path, recipe: Recipe) -> list[Logger]:
    """TensorBoard's logger and the requested ones, with the recipe as their hyper-parameters.

    Args:
        names: Names of trackers in `REGISTRY`; ``tensorboard`` is always included.
        folder: Folder of the training; everything is written into it.
        recipe: Recipe of the training; its name becomes the name of the experiment.

    Raises:
        UsageError: as :func:`check_trackers`.
        ResourceError: the package of a tracker is not installed (``missing-extra``).
    """
    check_trackers(names)
    made = []
    for name in dict.fromkeys(["tensorboard", *names]):
        try:
            made.append(REGISTRY[name](folder, recipe))
        except ModuleNotFoundError:
            raise ResourceError(
                f"{name} is not installed",
                where="track",
                remedy=f"pip install 'medseg[{name}]'",
                reason="missing-extra",
            ) from None
    for logger in made:
        logger.log_hyperparams(_flat(recipe.model_dump(mode="json")))
    return made


def log_pictures(trackers: Sequence[Logger], pictures: Mapping[str, Picture], step: int) -> None:
    """Adds pictures to every tracker.

    Args:
        trackers: Loggers from :func:`loggers`.
        pictures: uint8 (H, W, 3), by the name under which they are shown.
        step: Number of optimiser steps done.
    """
    for tracker in trackers:
        for name, picture in pictures.items():
            if isinstance(tracker, TensorBoardLogger):
                tracker.experiment.add_image(name, picture, step, dataformats="HWC")
            elif isinstance(tracker, WandbLogger):
                tracker.log_image(name, [picture], step=step)
            elif isinstance(tracker, MLFlowLogger):
                tracker.experiment.log_image(tracker.run_id, picture, key=name.replace("/", "_"), step=step)


def _tensorboard(folder: Path, recipe: Recipe) -> Logger:
    return TensorBoardLogger(str(folder), name="", version="tensorboard", default_hp_metric=False)


def _wandb(folder: Path, recipe: Recipe) -> Logger:
    import wandb

    # Settings of this run alone; Lightning's `offline` would set environment variables.
    quiet = wandb.Settings(mode="offline", silent=True, console="off", x_disable_stats=True)
    return WandbLogger(
        name=folder.name, save_dir=str(folder), project=recipe.name, dir=str(folder), settings=quiet
    )


def _mlflow(folder: Path, recipe: Recipe) -> Logger:
    import alembic  # noqa: F401 - mlflow-skinny needs it, and SQLAlchemy, for a database file
    import mlflow  # noqa: F401 - Lightning's own message would not name the extra
    import sqlalchemy  # noqa: F401

    place = folder.resolve()
    return MLFlowLogger(
        experiment_name=recipe.name,
        run_name=folder.name,
        tracking_uri=f"sqlite:///{place / 'mlflow.db'}",
        artifact_location=(place / "mlflow").as_uri(),
    )


REGISTRY: dict[str, Callable[[Path, Recipe], Logger]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
}


def _flat(data: object, prefix: str = "") -> dict[str, str | float]:
    """Nested tables as one: ``{"train": {"seed": 0}}`` becomes ``{"train.seed": 0}``; lists become text."""
    if isinstance(data, dict):
        inner = (_flat(value, f"{prefix}.{name}" if prefix else name) for name, value in data.items())
        return {name: value for each in inner for name, value in each.items()}
    return {prefix: data if isinstance(data, (int, float)) else str(data)[:250]}
