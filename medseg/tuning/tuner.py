"""The public function that searches for a better recipe."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.datasets.manifest import Case, Manifest
from medseg.errors import UsageError
from medseg.recipe import Recipe, digest
from medseg.system.atomic_write import replacing
from medseg.system.file_lock import locked
from medseg.system.output_folder import make_output_folder
from medseg.system.processes import thread_count
from medseg.tuning import storage as storages
from medseg.tuning.quick import quick_cases, quick_recipe
from medseg.tuning.results import TuningResult, write_results
from medseg.tuning.search_space import SearchSpace, default_space
from medseg.tuning.study import Job, TrialBook
from medseg.tuning.worker_pool import LOG, WorkerPool

FILE = "study.json"
_RESTARTS = 2
_WAIT_SECONDS = 1.0


@dataclass(frozen=True)
class TuningOptions:
    """Settings of a search other than its recipe, cases and search space.

    Attributes:
        workers: Number of trials at a time, each in its own process with its share of the processors.
        seconds: Time after which this call ends. Trials at work then stop, and the next call continues them.
        trial_seconds: Time limit for the training of each trial, as ``medseg train --max-time``.
        quick: Few steps and cases, for an answer within minutes.
        storage: Where the study is kept: a SQLite or journal file, or the URL of a database; by default
            ``study.sqlite`` in the output folder.
        study: Name of the study; by default that of the recipe.
        device: Device of the trainings; several workers share out the GPUs.

    Example:
        >>> medseg.TuningOptions(workers=2, seconds=6 * 3600).quick
        False
    """

    workers: int = 1
    seconds: float | None = None
    trial_seconds: float | None = None
    quick: bool = False
    storage: str | Path | None = None
    study: str | None = None
    device: str = "auto"


@dataclass(frozen=True)
class TrialEvent:
    """What happened to a trial, as :func:`tune` reports it.

    Attributes:
        kind: ``started``, ``continued``, ``epoch``, ``finished``, ``pruned``, ``failed`` or ``died`` (its
            worker has ended without an answer; the trial goes on in another one).
        trial: Number of the trial.
        dice: Validation Dice after an epoch, or mean Dice of a finished trial.
        epoch: Number of the epoch, from 1.
        why: Reason of a failure.
        process: Id of the worker process.

    Example:
        >>> medseg.TrialEvent("epoch", trial=3, dice=0.8, epoch=10).dice
        0.8
    """

    kind: str
    trial: int
    dice: float | None = None
    epoch: int | None = None
    why: str = ""
    process: int | None = None


def tune(
    cases: str | Path | Manifest | Sequence[Case],
    folder: str | Path,
    *,
    recipe: Recipe | str | Path,
    space: SearchSpace | Mapping[str, Any] | str | Path | None = None,
    trials: int = 20,
    options: TuningOptions | None = None,
    on_event: Callable[[TrialEvent], None] = lambda event: None,
) -> TuningResult:
    """Searches for the recipe with the highest mean validation Dice.

    Trial 0 is the given recipe, unchanged; the others vary it within the search space. Each is a training of
    its own, ``trial_0000`` and so on. A trial whose validation Dice is below the median of the others at the
    same epoch is stopped early (pruned), trial 0 never. A worker that dies is replaced, and its trial goes on
    from its last checkpoint. The same call again continues the study up to ``trials`` in total.

    The folder also gets ``trials.csv``, ``best.yaml`` (the best recipe) and ``summary.html``.

    Args:
        cases: A manifest, its path, or a sequence of cases with the splits ``train`` and ``val``.
        folder: A new folder, or that of a study to continue. One command at a time works in it.
        recipe: The recipe to vary.
        space: The fields that vary: the path of a YAML file, or a mapping from the dotted name of a field to
            a range ``{low, high, log, step}`` or a list of choices. None varies the learning rate, the
            augmentation and a few more.
        trials: Number of trials in total.
        options: Workers, limits and storage.
        on_event: Called when a trial starts, validates and ends.

    Raises:
        UsageError: the search space does not fit recipes (``tune-space``), there are no training or
            validation cases (``tune-validation``), recipe, space, cases or options have changed since the
            study began (``study-changed``), the study cannot be opened (``tune-storage``), another command
            is at work in the folder (``in-use``), the folder holds something else (``foreign-file``), or the
            given recipe cannot be trained (``tune-start``).
        ResourceError: Optuna is not installed (``missing-extra``).

    Example:
        >>> result = medseg.tune(
        ...     "cases.csv", "search", recipe="tiny.yaml", trials=2, space={"train.learning_rate": [0.01]}
        ... )
        >>> result.best.values
        {'train.learning_rate': 0.01}
    """
    storages.check_installed()
    options, folder = options or TuningOptions(), Path(folder)
    given = recipe if isinstance(recipe, Recipe) else Recipe.read(recipe)
    varied = quick_recipe(given) if options.quick else given
    chosen = _space(space, varied, quick=options.quick)
    listed = _cases(cases, quick=options.quick)
    make_output_folder(folder)
    with locked(folder / ".lock", remedy="wait until that command has ended, or choose another folder"):
        book = _open(folder, varied, chosen, listed, trials=trials, options=options)
        run = _Run(book, folder, listed, options, on_event)
        run.until(trials)
        return write_results(folder, book.records(), given=given, space=chosen, wanted=trials)


class _Run:
    """One call's work on a study."""

    def __init__(
        self,
        book: TrialBook,
        folder: Path,
        cases: Sequence[Case],
        options: TuningOptions,
        on_event: Callable[[TrialEvent], None],
    ) -> None:
        self._book, self._folder, self._options, self._on_event = book, folder, options, on_event
        self._cases = [case.model_dump(mode="json") for case in cases]
        self._jobs: dict[int, Job] = {}
        self._again: list[Job] = []

    def until(self, total: int) -> None:
        """Trains until the study has ``total`` trials, or the time is over."""
        started = time.monotonic()
        limit = self._options.seconds
        with WorkerPool(self._options.workers, self._folder / LOG) as pool:
            while limit is None or time.monotonic() - started < limit:
                self._book.beat()
                for slot in pool.idle():
                    job = self._again.pop() if self._again else self._book.claim(total)
                    if job is None:
                        break
                    self._give(pool, slot, job)
                if not pool.trials():
                    return
                for slot, number, message in pool.wait(_WAIT_SECONDS):
                    self._take(pool, slot, self._jobs[number], message)

    def _give(self, pool: WorkerPool, slot: int, job: Job) -> None:
        place = self._folder / job.folder
        continued = (place / "recipe.yaml").exists()
        request = {
            "recipe": job.recipe.model_dump(mode="json"),
            "cases": self._cases,
            "folder": str(place.absolute()),
            "cache": str((self._folder / "cache").absolute()),
            "device": self._options.device,
            "slot": slot,
            "threads": max(1, thread_count() // self._options.workers),
            "max_seconds": self._options.trial_seconds,
        }
        self._jobs[job.number] = job
        pool.give(slot, job.number, request)
        self._tell("continued" if continued else "started", job, process=pool.process_id(slot))

    def _take(self, pool: WorkerPool, slot: int, job: Job, message: Mapping[str, Any]) -> None:
        event, number = message["event"], job.number
        facts = {name: message[name] for name in ("seconds", "epochs") if name in message}
        if event == "epoch":
            stop = self._book.report(number, message["epoch"], message["dice"])
            process = pool.process_id(slot)
            pool.reply(slot, {"stop": stop})
            self._tell("epoch", job, dice=message["dice"], epoch=message["epoch"], process=process)
        elif event == "finished":
            scores = [(str(case), float(dice), str(patient)) for case, dice, patient in message["scores"]]
            self._book.finish(number, scores, facts, message["dice"])
            self._tell("finished", job, dice=message["dice"])
        elif event == "pruned":
            self._book.stop(number, "below the median of the other trials at this epoch", facts)
            self._tell("pruned", job, epoch=message["epochs"])
        elif event == "failed":
            self._failed(job, f"{message['problem']} ({message['reason']})")
        else:
            self._died(job, message["how"])

    def _died(self, job: Job, how: str) -> None:
        count = self._book.count_restart(job.number)
        if count > _RESTARTS:
            self._failed(job, f"its worker died {count} times, the last time by {how}: see {LOG}")
            return
        self._again.append(job)
        self._tell("died", job, why=how)

    def _failed(self, job: Job, why: str) -> None:
        if job.is_start:  # it stays open: the next call tries it again
            raise UsageError(
                f"the given recipe cannot be trained: {why}",
                where=self._folder / job.folder,
                remedy="correct what the message names; `medseg train` shows the same",
                reason="tune-start",
            )
        self._book.fail(job.number, why)
        self._tell("failed", job, why=why)

    def _tell(self, kind: str, job: Job, **facts: Any) -> None:
        self._on_event(TrialEvent(kind, job.number, **facts))


def _space(
    space: SearchSpace | Mapping[str, Any] | str | Path | None, recipe: Recipe, *, quick: bool
) -> SearchSpace:
    if space is None:
        return default_space(recipe, quick=quick)
    if isinstance(space, SearchSpace):
        return space
    return (
        SearchSpace.checked(space, recipe) if isinstance(space, Mapping) else SearchSpace.read(space, recipe)
    )


def _cases(cases: str | Path | Manifest | Sequence[Case], *, quick: bool) -> list[Case]:
    """The training and validation cases."""
    if isinstance(cases, str | Path):
        cases = Manifest.read(cases)
    listed = cases.cases if isinstance(cases, Manifest) else tuple(cases)
    used = [case for case in listed if case.split in ("train", "val") and case.label is not None]
    for split in ("train", "val"):
        if not any(case.split == split for case in used):
            raise UsageError(
                f"no labelled case has the split {split}, so that recipes cannot be compared",
                where="manifest",
                remedy="medseg manifest DATA -o cases.csv --val 0.2",
                reason="tune-validation",
            )
    return quick_cases(used) if quick else used


def _open(
    folder: Path,
    recipe: Recipe,
    space: SearchSpace,
    cases: Sequence[Case],
    *,
    trials: int,
    options: TuningOptions,
) -> TrialBook:
    """The study in a locked folder, which is that of this recipe, space and cases."""
    from optuna.pruners import MedianPruner

    place = options.storage or folder / storages.DEFAULT
    node = _node(folder, recipe, storages.described(place))
    study = storages.open_study(place, options.study or recipe.name)
    study.pruner = MedianPruner(
        n_startup_trials=min(4, max(2, trials // 3)), n_warmup_steps=recipe.train.epochs // 5
    )
    book = TrialBook(study, space, recipe, node=node, shared=options.storage is not None)
    bound = {
        "the recipe": recipe.digest,
        "the search space": space.digest,
        "the time limit of trials": digest([options.trial_seconds]),
    }
    book.check(bound)  # before the files of the cases are read
    book.bind({**bound, "the cases": _cases_digest(cases)})
    book.begin()
    return book


def _cases_digest(cases: Sequence[Case]) -> str:
    """Digest of ids, patients, splits and the content of all files, wherever they lie."""
    from medseg.training.case_cache import content_digest

    return digest(
        [
            {
                **case.model_dump(mode="json", include={"id", "patient", "split", "annotated"}),
                "files": [content_digest(path) for path in (*case.images, case.label) if path is not None],
            }
            for case in sorted(cases, key=lambda case: case.id)
        ]
    )


def _node(folder: Path, recipe: Recipe, storage: str) -> str:
    """The random code of the output folder, kept in its ``study.json``."""
    path = folder / FILE
    if path.exists():
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            return str(facts["node"])
        except (OSError, ValueError, KeyError, TypeError):
            raise UsageError(
                "not the record of a study",
                where=path,
                remedy="restore it, or choose another folder",
                reason="study-file",
            ) from None
    if (folder / "recipe.yaml").exists() or (folder / "trials.csv").exists():
        raise UsageError(
            "the folder already holds something else",
            where=folder,
            remedy="choose a new folder",
            reason="has-results",
        )
    node = secrets.token_hex(6)
    with replacing(path) as fresh:
        facts = {"node": node, "recipe": recipe.name, "seed": recipe.train.seed, "storage": storage}
        fresh.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return node
