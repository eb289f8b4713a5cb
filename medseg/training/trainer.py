"""Training: a recipe and a manifest in, one model file out."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from medseg.datasets.manifest import Case
from medseg.datasets.validation import Entry, apply_case_rules, compare, compare_splits, refuse, subject_of
from medseg.errors import UsageError
from medseg.inference.model import Model
from medseg.recipe import Recipe, digest
from medseg.system.atomic_write import replacing
from medseg.system.error_conversion import is_out_of_memory
from medseg.system.quiet_libraries import quiet
from medseg.training import checkpointing, provenance
from medseg.training.case_cache import CachedCase, Patches, cached, tell
from medseg.training.checkpoint_files import network_weights
from medseg.training.dataloaders import patches, scans
from medseg.training.hardware import Hardware, check_precision
from medseg.training.history import EpochEnd, History
from medseg.training.interrupt import Interruption
from medseg.training.lightning_module import SegmentationModule
from medseg.training.loggers import check_trackers, loggers
from medseg.training.memory_search import out_of_memory
from medseg.training.provenance import Record

__all__ = ["EpochEnd", "Hardware", "is_first_process", "train"]
_PRECISION: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}
# Their hints about workers and accelerators are for developers.
_LIGHTNING = ("lightning.pytorch", "lightning.fabric")


def train(
    recipe: Recipe,
    cases: Sequence[Case],
    folder: str | Path,
    *,
    cache: Path | None = None,
    resume: bool = False,
    max_seconds: float | None = None,
    hardware: Hardware | None = None,
    track: Sequence[str] = (),
    repeats: Record | None = None,
    on_case: Callable[[int, int], None] = lambda done, cases: None,
    on_epoch: Callable[[EpochEnd], None] = lambda end: None,
) -> Model:
    """Trains the recipe's network and returns the best model, which is also on disk.

    The folder gets ``model.safetensors`` (the product), ``recipe.yaml``, ``history.csv``,
    ``checkpoints/`` (best, last and the one before, for resuming), ``tensorboard/`` (curves, and
    pictures of the first validation cases), and how it came about: see :mod:`medseg.training.provenance`.
    The best model is that of the highest mean validation Dice over labels, measured on whole scans with
    the sliding window; without validation cases it is the last.

    A training killed at any moment and resumed gives the weights of an uninterrupted one: on a
    CPU to the bit, whatever the number of workers.

    Args:
        recipe: Decides everything that is learned.
        cases: Cases of the splits ``train`` and ``val``; others are ignored.
        folder: A new folder, or one to resume.
        cache: Where prepared cases are kept; ``folder/cache`` by default.
        resume: Go on from the last checkpoint of ``folder``, or from the start where it was
            interrupted in its first epoch. A damaged checkpoint is passed over for the one before.
        max_seconds: Stop before the epoch that would end after this time, the time of resumed
            parts counted in, keeping the best model so far. The first epoch is always run.
        hardware: Where it runs; by default one GPU, or this process on the CPU.
        track: Further trackers, rows of :mod:`medseg.training.loggers`.
        repeats: The record of a training to be done again: the data must be what they were, and
            it ends after the same epoch.
        on_case: Called with the number of cases that are prepared, and of all.
        on_epoch: Called after every epoch, in the first process.

    Raises:
        UsageError: no training case, a folder in use, nothing to resume, another recipe or other
            data; the loss is not a number (``nan-loss``, naming the case).
        InputRefused: `medseg check` finds an error in the cases (``data-errors``).
        ModelRefused: the checkpoints to resume from are damaged.
        ResourceError: out of memory; the error names sizes that fit.
    """
    folder, hardware = Path(folder), hardware or Hardware()
    fitting = [case for case in cases if case.split == "train"]
    checking = [case for case in cases if case.split == "val"]
    if not fitting:
        raise UsageError(
            "no case has split 'train'",
            where="manifest",
            remedy="fill the split column",
            reason="no-training-case",
        )
    check_precision(recipe.train.precision, hardware)
    check_trackers(track)
    last = _start(folder, recipe, resume)
    prepared = _prepared([*fitting, *checking], recipe, cache or folder / "cache", hardware, on_case)
    fitted, held = prepared[: len(fitting)], prepared[len(fitting) :]
    _compare([*fitting, *checking], prepared, recipe)
    data = digest(sorted(case.folder.name for case in prepared))
    _record(folder, recipe, cases, prepared, hardware, repeats)
    try:
        with quiet(*_LIGHTNING, below=logging.ERROR), _same_switches(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.train.seed)
            most_epochs = repeats.facts.get("epochs_done") if repeats else None
            keeper = checkpointing.CheckpointCallback(folder, recipe.train, max_seconds, most_epochs)
            trackers = loggers(track, folder, recipe) if is_first_process() else []
            run = _Run(recipe, folder, data, hardware, keeper, trackers, on_epoch)
            run.fit(fitted, held, last)
    except RuntimeError as error:
        if is_out_of_memory(error):
            # Its traceback holds the tensors that fill the memory.
            error.__traceback__ = None
            raise out_of_memory(recipe, _device(hardware)) from None
        if "deterministic" in str(error):
            raise UsageError(
                str(error).splitlines()[0][:200],
                where="train.deterministic",
                remedy="switch it off: the results then differ in the last digits from run to run",
                reason="not-deterministic",
            ) from None
        raise
    place = folder / "model.safetensors"
    if is_first_process():
        model = _product(recipe, folder, data, [c.id for c in fitted], [c.id for c in held])
        model.save(place)
        provenance.ended(folder, run.trainer.current_epoch)
    run.wait_for_all()
    return Model.load(place)


def is_first_process() -> bool:
    """Whether this is the only process of a training or the first of several: the one that speaks."""
    return bool(rank_zero_only.rank == 0)


class _Run:
    """One call of Lightning's loop, with everything that takes part in it."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        data: str,
        hardware: Hardware,
        keeper: checkpointing.CheckpointCallback,
        trackers: list[Logger],
        on_epoch: Callable[[EpochEnd], None],
    ) -> None:
        self.recipe, self.folder, self.data = recipe, folder, data
        self.hardware, self.keeper, self.on_epoch = hardware, keeper, on_epoch
        rules = recipe.train
        self.trainer = pl.Trainer(
            accelerator=hardware.kind,
            devices=hardware.devices,
            num_nodes=hardware.nodes,
            strategy="ddp" if hardware.processes > 1 else "auto",
            use_distributed_sampler=False,
            sync_batchnorm=hardware.processes > 1 and hardware.kind == "gpu",
            precision=_PRECISION[rules.precision],
            deterministic=rules.deterministic or None,
            max_epochs=rules.epochs,
            check_val_every_n_epoch=rules.validate_every,
            num_sanity_val_steps=0,
            accumulate_grad_batches=rules.accumulate,
            gradient_clip_val=rules.gradient_clip,
            logger=trackers,
            default_root_dir=folder,
            plugins=[checkpointing.WholeFiles(), *_cluster()],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=1,
        )

    def fit(
        self,
        fitted: Sequence[CachedCase],
        held: Sequence[CachedCase],
        last: checkpointing.ResumePoint | None,
    ) -> None:
        recipe, trainer = self.recipe, self.trainer
        part = {"share": trainer.global_rank, "shares": trainer.world_size}
        # Where a GPU trains, it augments as well: two or three processors cannot keep up with it.
        on_device = self.hardware.kind == "gpu"
        loader = patches(
            fitted,
            recipe,
            workers=self.hardware.workers,
            first_epoch=last.epochs_done if last else 0,
            augmented=not on_device,
            **part,
        )
        task = SegmentationModule(recipe, self.data, Patches(fitted, recipe) if on_device else None)
        trainer.callbacks += [
            History(self.folder / "history.csv", recipe, loader, self.on_epoch),
            self.keeper,
        ]
        interruption = Interruption()
        trainer.callbacks.append(interruption)
        try:
            with interruption.noticed():
                trainer.fit(
                    task,
                    loader,
                    scans(held, **part) if held else None,
                    ckpt_path=str(last.checkpoint) if last else None,
                    weights_only=True,
                )
        except SystemExit:
            # What Lightning makes of Ctrl-C, after it has told the signal to be ignored.
            raise KeyboardInterrupt from None

    def wait_for_all(self) -> None:
        self.trainer.strategy.barrier()


def _start(folder: Path, recipe: Recipe, resume: bool) -> checkpointing.ResumePoint | None:
    """Where to go on, None for a new training; the recipe is written into the folder."""
    if resume:
        if checkpointing.used(folder):
            return checkpointing.resumption(folder)
        raise UsageError(
            "nothing to resume",
            where=folder,
            remedy="leave out --resume to start a new training",
            reason="nothing-to-resume",
        )
    if not is_first_process():  # the first has just begun it
        return None
    if (folder / checkpointing.FOLDER).exists() or (folder / "model.safetensors").exists():
        raise UsageError(
            "the folder holds a training already",
            where=folder,
            remedy="add --resume, or choose a new folder",
            reason="has-results",
        )
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / provenance.RECIPE) as fresh:
        fresh.write_text(recipe.yaml(), encoding="utf-8")
    return None


def _compare(cases: Sequence[Case], prepared: Sequence[CachedCase], recipe: Recipe) -> None:
    """Refuses what the cases together tell: leaks between splits, labels that never occur; tells the rest."""
    entries = [
        Entry(case, held.facts(), subject_of(case)) for case, held in zip(cases, prepared, strict=True)
    ]
    findings = [each for entry in entries for each in apply_case_rules(entry.case, entry.facts, recipe)]
    findings += [*compare(entries, recipe), *compare_splits(cases, recipe)]
    refuse(findings)
    if is_first_process():
        tell(findings)


def _record(
    folder: Path,
    recipe: Recipe,
    cases: Sequence[Case],
    prepared: Sequence[CachedCase],
    hardware: Hardware,
    repeats: Record | None,
) -> None:
    """Writes how this training comes about, once; compares it with the one it repeats."""
    data = {case.id: case.folder.name for case in prepared}
    if repeats is not None:
        provenance.check(repeats, data, processes=hardware.processes)
    if is_first_process() and not (folder / provenance.RUN).exists():
        options = {"processes": hardware.processes, "device": hardware.kind, "workers": hardware.workers}
        provenance.write(folder, recipe, cases, options=options, data=data)


def _prepared(
    cases: Sequence[Case],
    recipe: Recipe,
    place: Path,
    hardware: Hardware,
    on_case: Callable[[int, int], None],
) -> tuple[CachedCase, ...]:
    """All cases, prepared. Several processes begin at different cases and so share the work."""
    offset = rank_zero_only.rank * len(cases) // hardware.processes
    held: dict[str, CachedCase] = {}
    for number, case in enumerate((*cases[offset:], *cases[:offset]), start=1):
        held[case.id] = cached(case, recipe, place)
        on_case(number, len(cases))
    return tuple(held[case.id] for case in cases)


def _cluster() -> list[SLURMEnvironment]:
    """On SLURM: without Lightning's own requeueing, which keeps checkpoints of another kind."""
    return [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []


def _device(hardware: Hardware) -> torch.device:
    return torch.device("cuda" if hardware.kind == "gpu" else "cpu")


def _product(recipe: Recipe, folder: Path, data: str, fitted: list[str], held: list[str]) -> Model:
    chosen = checkpointing.chosen(folder)
    provenance = {
        "medseg": version("medseg"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "recipe_digest": recipe.digest,
        "data_digest": data,
        "train_cases": fitted,
        "val_cases": held,
        "epoch": int(chosen["epoch"]) + 1,
        "research_use_only": True,
    }
    return Model(recipe, (network_weights(chosen["state_dict"]),), provenance)


@contextmanager
def _same_switches() -> Iterator[None]:
    """Torch's global switches as they were, once the training is over."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark
