"""Training of a model on cases, from the check of its inputs to the saved model."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from medseg.datasets.manifest import Case
from medseg.errors import UsageError
from medseg.inference import exported_graphs
from medseg.inference.model import Model
from medseg.recipe import Recipe
from medseg.system.error_conversion import is_out_of_memory
from medseg.system.own_version import own_version
from medseg.system.quiet_libraries import quiet
from medseg.training import checkpointing, fine_tuning, kept_labels, provenance, run_folder
from medseg.training.checkpoint_files import network_weights
from medseg.training.dataloaders import raise_worker_error
from medseg.training.fine_tuning import FineTuning, notify_leaks
from medseg.training.hardware import Hardware, check_precision, check_slurm, is_first_process
from medseg.training.history import EpochEnd
from medseg.training.lightning_run import LightningRun, torch_switches_restored
from medseg.training.loggers import check_trackers, loggers
from medseg.training.memory_search import out_of_memory
from medseg.training.options import TrainingOptions
from medseg.training.training_data import TrainingData, prepare_cases, training_cases

__all__ = ["EpochEnd", "Hardware", "TrainingOptions", "is_first_process", "train"]
# Their hints about workers and accelerators are for developers.
_LIGHTNING = ("lightning.pytorch", "lightning.fabric")


def train(
    recipe: Recipe,
    cases: Sequence[Case],
    folder: str | Path,
    *,
    resume: bool = False,
    hardware: Hardware | None = None,
    options: TrainingOptions | None = None,
    on_case: Callable[[int, int], None] = lambda done, cases: None,
    on_epoch: Callable[[EpochEnd], None] = lambda end: None,
) -> Model:
    """The best model of a new or resumed training; it is also saved in ``folder``.

    The folder gets ``model.safetensors`` (the product), ``recipe.yaml``, ``history.csv``,
    ``checkpoints/`` (the best, the last and the one before it, for resuming), ``tensorboard/`` (curves,
    and images of the first validation cases), and its provenance: see :mod:`medseg.training.provenance`.
    The best model has the highest mean validation Dice over labels, measured on whole scans with the
    sliding window; without validation cases the last weights are the model.

    A training that is killed at any moment and resumed gives the weights of an uninterrupted one: on a
    CPU they are identical to the bit, whatever the number of workers.

    Args:
        recipe: Defines everything that is learned.
        cases: Cases of the splits ``train`` and ``val``; others are ignored.
        folder: A new folder, or the folder of a training to resume.
        resume: Continue from the last checkpoint in ``folder``, or from the start if the first epoch was
            not finished. A damaged checkpoint is skipped in favour of the one before it.
        hardware: Device and number of processes; by default one GPU, or this process on the CPU.
        options: Cache folder (by default ``cache`` in ``folder``), time limit, additional trackers, and
            the record of a training to repeat.
        on_case: Called with the number of prepared cases and the number of all cases.
        on_epoch: Called after every epoch, in the first process.

    Raises:
        UsageError: no training case; the recipe has a section ``context`` (``context``) or ``pipeline``
            (``pipeline``); another training is running in the folder (``in-use``) or has been run there
            (``has-results``); nothing to resume, or recipe, data, splits, device or number of processes have
            changed since (``resume-changed``); the loss is not finite (``nan-loss``); the model to start from
            cannot be used (see :func:`medseg.training.fine_tuning.prepare`).
        InputRefused: `medseg check` finds an error in the cases (``data-errors``).
        ModelRefused: the checkpoints to resume from are damaged.
        ResourceError: out of memory; the error names sizes that fit.
    """
    folder, hardware, options = Path(folder), hardware or Hardware(), options or TrainingOptions()
    training_cases(cases)
    _refuse_untrainable(recipe)
    check_precision(recipe.train.precision, hardware)
    check_slurm(hardware)
    check_trackers(options.track)
    if resume:
        run_folder.check_resumable(folder)
    with run_folder.lock(folder):
        return _train(
            recipe,
            cases,
            folder,
            resume=resume,
            hardware=hardware,
            options=options,
            on_case=on_case,
            on_epoch=on_epoch,
        )


def _train(
    recipe: Recipe,
    cases: Sequence[Case],
    folder: Path,
    *,
    resume: bool,
    hardware: Hardware,
    options: TrainingOptions,
    on_case: Callable[[int, int], None],
    on_epoch: Callable[[EpochEnd], None],
) -> Model:
    """The model of a training in a locked folder; see :func:`train`."""
    chosen = training_cases(cases)
    tuning = fine_tuning.prepare(options.source, recipe, folder, resume=resume, repeats=options.repeats)
    keeps = recipe.fine_tune is not None and recipe.fine_tune.keep_labels
    if tuning is not None and keeps:
        kept = kept_labels.missing_labels(chosen, recipe, tuning.model.recipe)
        tuning = replace(tuning, pseudo_labels=kept)
    resume_point = run_folder.start(folder, recipe, resume=resume, tuning=tuning)
    if tuning is not None and keeps:
        place = hardware.torch_device.type if hardware.kind == "gpu" else "cpu"
        chosen = kept_labels.completed(chosen, recipe, tuning, folder, device=place, resume=resume)
    data = prepare_cases(
        chosen, recipe, options.cache or folder / "cache", processes=hardware.processes, on_case=on_case
    )
    run_folder.record(folder, recipe, cases, data, hardware=hardware, options=options, tuning=tuning)
    if tuning is not None and is_first_process():
        notify_leaks(tuning, [case.id for case in data.val])
    epoch_limit = options.repeats.facts.get("epochs_done") if options.repeats else None
    keeper = checkpointing.CheckpointCallback(folder, recipe.train, options.max_seconds, epoch_limit)
    try:
        with quiet(*_LIGHTNING, below=logging.ERROR), torch_switches_restored(), torch.random.fork_rng([]):
            torch.manual_seed(recipe.train.seed)
            trackers = loggers(options.track, folder, recipe) if is_first_process() else []
            run = LightningRun(
                recipe, folder, hardware=hardware, keeper=keeper, trackers=trackers, on_epoch=on_epoch
            )
            run.fit(data, resume_point, tuning)
    except (RuntimeError, OSError) as error:
        if is_out_of_memory(error):
            # Its traceback refers to the tensors that fill the memory.
            error.__traceback__ = None
            raise out_of_memory(recipe, hardware.torch_device) from None
        if isinstance(error, RuntimeError) and "deterministic" in str(error):
            raise _not_deterministic(error) from None
        raise_worker_error(error)
        raise
    path = folder / "model.safetensors"
    if is_first_process():
        model = _make_model(recipe, folder, data, tuning)
        model.save(path)
        exported_graphs.export(model)
        provenance.ended(folder, run.epochs_done)
    run.wait_for_all()
    return Model.load(path)


def _refuse_untrainable(recipe: Recipe) -> None:
    if recipe.pipeline is not None:
        raise UsageError(
            f"medseg train does not train a recipe with a pipeline ({recipe.pipeline.kind})",
            where="pipeline",
            remedy="train a recipe of its own: remove the section pipeline",
            reason="pipeline",
        )
    if recipe.context is not None:
        raise UsageError(
            "medseg train does not train a recipe that has a section context",
            where="context",
            remedy="train its two networks with benchmarks/lungs/context/train.py",
            reason="context",
        )


def _not_deterministic(error: RuntimeError) -> UsageError:
    return UsageError(
        str(error).splitlines()[0][:200],
        where="train.deterministic",
        remedy="switch it off: the results then differ in the last digits from run to run",
        reason="not-deterministic",
    )


def _make_model(recipe: Recipe, folder: Path, data: TrainingData, tuning: FineTuning | None) -> Model:
    """The model of the chosen checkpoint, with its provenance."""
    chosen = checkpointing.load_chosen(folder)
    facts = {
        "medseg": own_version(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "recipe_digest": recipe.digest,
        "data_digest": data.digest,
        "train_cases": [case.id for case in data.train],
        "val_cases": [case.id for case in data.val],
        "epoch": int(chosen["epoch"]) + 1,
        "research_use_only": True,
    }
    if tuning is not None:
        facts["source"] = tuning.facts()
    return Model(recipe, (network_weights(chosen["state_dict"]),), facts)
