"""Thousands of scans, segmented one after the other: nothing is done twice, and nothing is lost.

In the output folder::

    masks/<case>.nii.gz   with several models masks/<model>/<case>.nii.gz
    masks/labels.json     names and values of the labels
    results.csv           a row a case and model
    thumbnails.jsonl      a small picture of each mask, for medseg report
    journal.jsonl         what was done, and when

A shard has a journal and tables of its own, such as journal-3-of-10.jsonl; :func:`merge_batch` makes one of
them all.

A case is done when the journal says so for the same input, the same model and the same options, and when
its mask is still the file that was written.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Protocol, TextIO

from medseg.batch_processing import fingerprint, results
from medseg.batch_processing.case_discovery import Item
from medseg.batch_processing.folder_lock import lock_folder
from medseg.batch_processing.journal import NAME, Journal, Key, Record, journals, latest, read
from medseg.batch_processing.messages import MASKS, BatchConfig, CaseJob, StopRequest
from medseg.batch_processing.process_pool import PoolSize, ProcessPool
from medseg.errors import ResourceError, UsageError
from medseg.inference.case_result import CaseResult, ModelIdentity
from medseg.io.sidecar import LABELS, write_json
from medseg.visualization import thumbnails

__all__ = ["BatchConfig", "BatchSummary", "Item", "StopRequest", "Workers", "merge_batch", "run"]

_SCRATCH = ".scratch"
_RESULTS_SECONDS = 60.0


@dataclass(frozen=True)
class BatchSummary:
    """How a batch ended; each number counts cases, one with several models once.

    Attributes:
        done: Segmented now.
        skipped: Were done before.
        left: Not reached, because the batch was asked to stop.
        results: The table.
        failures: Names of those that failed, now or before.
        warned: Names of those that were segmented with a warning, now or before.
    """

    done: int
    skipped: int
    left: int
    results: Path
    failures: tuple[str, ...] = ()
    warned: tuple[str, ...] = ()

    @property
    def failed(self) -> int:
        """How many failed, now or before."""
        return len(self.failures)


class Workers(Protocol):
    """What does jobs: processes of this machine, or actors of a cluster."""

    def models(self) -> list[ModelIdentity]: ...  # noqa: D102

    def run(  # noqa: D102
        self, jobs: Sequence[CaseJob], tell: Callable[[list[CaseResult]], None], stop: StopRequest
    ) -> None: ...

    def end(self) -> None: ...  # noqa: D102


def run(
    items: Sequence[Item],
    order: BatchConfig,
    *,
    resume: bool = False,
    retry_failed: bool = False,
    shard: str | None = None,
    workers: int | None = None,
    memory_bytes: int | None = None,
    case_seconds: float = 7200.0,
    command: str = "",
    start: Callable[[BatchConfig, int], Workers] | None = None,
    show: Callable[[Record], None] = lambda event: None,
    stop: StopRequest | None = None,
) -> BatchSummary:
    """Segments every item that is not done yet.

    Args:
        items: The cases, as :func:`medseg.batch_processing.case_discovery.items` finds them.
        order: What to do; its folder need not exist, its scratch is chosen here.
        resume: Go on in a folder that holds results; without it such a folder is refused.
        retry_failed: Try failed cases again, also those whose scan was refused. Those that failed for
            lack of memory or disk are always tried again.
        shard: Its name, such as ``3-of-10``, where ``items`` are one shard of the cases.
        workers: Processes; by default one a core, as far as memory allows.
        memory_bytes: For all of them together; by default nine tenths of what is free.
        case_seconds: A case that takes longer fails.
        command: As it was typed, for the journal.
        start: Makes other workers for so many cases than the processes of this machine.
        show: Told of the start, every case and the end.
        stop: Ends the batch when it is asked to.

    Raises:
        UsageError: the folder holds results and ``resume`` is not given (``has-results``), or another
            process is at work in it (``in-use``).
        ResourceError: the disk refuses (``disk``), or no worker can be started.
        ModelRefused: a model is damaged.
    """
    folder, stop = Path(os.path.abspath(order.folder)), stop or StopRequest()  # noqa: PTH100
    _make(folder)
    with ExitStack() as stack:
        stack.enter_context(lock_folder(folder, shard))
        own = folder / (NAME.replace(".", f"{_behind(shard)}."))
        before = latest(read(journals(folder)))
        earlier = latest(read([own])) if shard and own.exists() else {} if shard else before
        if earlier and not (resume or retry_failed):
            raise UsageError(
                f"results of {len({case for case, _ in earlier})} cases are in this folder",
                where=folder,
                remedy="go on with --resume, or choose another folder",
                reason="has-results",
            )
        scratch = folder / (f"{_SCRATCH}{_behind(shard)}")
        shutil.rmtree(scratch, ignore_errors=True)
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        order = replace(order, folder=str(folder), scratch=str(scratch))
        journal = Journal(own)
        stack.callback(journal.close)
        pictures = stack.enter_context((folder / f"thumbnails{_behind(shard)}.jsonl").open("a"))
        if start is None:
            size = PoolSize.planned(cases=len(items), workers=workers, memory_bytes=memory_bytes)
            crew: Workers = ProcessPool(order, size, case_seconds=case_seconds)
        else:
            crew = start(order, len(items))
        stack.callback(crew.end)
        table = folder / results.NAME.replace(".", f"{_behind(shard)}.")
        book = _Book(items, order, before, journal, pictures, table, show, retry_failed=retry_failed)
        jobs = book.open(crew.models(), command)
        try:
            if jobs:
                crew.run(jobs, book.enter, stop)
        finally:
            book.write()
        return book.close()


def merge_batch(folder: str | Path) -> BatchSummary:
    """The table of all shards, from their journals; the runs may still go on.

    Raises:
        UsageError: no journal is there (``no-journal``).

    Example:
        >>> options = medseg.BatchResources(workers=1, shard="1/2")
        >>> _ = medseg.batch("dataset/labels", "halves", model="threshold", resources=options,
        ...                  options=medseg.BatchOptions(any_modality=True))
        >>> medseg.merge_batch("halves").results.name
        'results.csv'
    """
    folder = Path(folder)
    found = read(journals(folder))
    if not found:
        raise UsageError(
            "no journal is in this folder",
            where=folder,
            remedy="give the output folder of medseg batch",
            reason="no-journal",
        )
    known = latest(found)
    planned = {record["shard"]: record["cases"] for record in found if record.get("event") == "start"}
    ordered = [known[key] for key in sorted(known)]
    failed, warned = _failed_and_warned(ordered)
    cases = {result.case for result in ordered}
    left = max(0, sum(planned.values()) - len(cases))
    table = results.write(folder / results.NAME, ordered)
    return BatchSummary(0, len(cases) - len(failed), left, table, failed, warned)


class _Book:
    """What is known of every case, and what there is left to do."""

    def __init__(
        self,
        items: Sequence[Item],
        order: BatchConfig,
        before: dict[Key, CaseResult],
        journal: Journal,
        pictures: TextIO,
        table: Path,
        show: Callable[[Record], None],
        *,
        retry_failed: bool,
    ) -> None:
        self.items, self.order, self.journal, self.show = items, order, journal, show
        self.pictures, self.table = pictures, table
        self.retry_failed = retry_failed
        self.known = before
        self.options = fingerprint.digest_of(order.decisive | {"medseg": version("medseg")})
        self.stamps: dict[str, str | None] = {}
        self.patients = {item.id: item.patient for item in items}
        self.models: list[ModelIdentity] = []
        self.skipped: set[str] = set()
        self.told: set[str] = set()
        self.written = time.monotonic()

    def open(self, models: list[ModelIdentity], command: str) -> list[CaseJob]:
        """Notes the start in the journal; the jobs that are to be done."""
        self.models = models
        here = {"pid": os.getpid(), "host": socket.gethostname(), "medseg": version("medseg")}
        shard = self.journal.path.stem.partition("-")[2]
        start = {"event": "start", "time": time.time(), "cases": len(self.items), "shard": shard, **here}
        told = {"command": command, "models": [model.to_json() for model in models]}
        self.journal.append({**start, **told, "options": self.order.decisive})
        for model in models:
            inner = model.name if len(models) > 1 else ""
            place = Path(self.order.folder) / MASKS / inner / LABELS
            place.parent.mkdir(parents=True, exist_ok=True)
            write_json(place, {"labels": model.to_json()["labels"]})
        listings: fingerprint.Listings = {}
        jobs, bad = [], []
        for item in self.items:
            if item.error is not None:
                bad.append(item)
                continue
            self.stamps[item.id] = fingerprint.stamp(item.images, listings)
            todo = tuple(number for number, model in enumerate(models) if not self._is_done(item, model))
            if todo:
                jobs.append(CaseJob(item.id, tuple(map(str, item.images)), todo))
            else:
                self.skipped.add(item.id)
        self.show({**start, "skipped": len(self.skipped), "todo": len(jobs) + len(bad)})
        for item in bad:
            assert item.error is not None
            self.enter([CaseResult.failure(item.id, models[0], item.error, lasting=True)])
        return jobs

    def enter(self, found: list[CaseResult]) -> None:
        """Notes what became of a case.

        Raises:
            ResourceError: nothing can be written any more (``disk``).
        """
        for result in found:
            case = result.case
            if result.thumbnail:
                self.pictures.write(thumbnails.line(case, result.model, result.thumbnail))
            whole = replace(
                result,
                thumbnail="",
                time=time.time(),
                patient=self.patients[case],
                stamp=self.stamps.get(case),
                options=self.options,
            )
            self.journal.append(whole.to_json())
            self.known[case, result.model] = whole
            self.told.add(case)
            self.show(whole.to_json())
        for result in found:
            if result.reason == "disk":
                raise ResourceError(
                    f"the batch stops, because nothing can be written: {result.message}",
                    where=self.order.folder,
                    remedy="make room; then --resume goes on",
                    reason="disk",
                )
        if time.monotonic() - self.written > _RESULTS_SECONDS:
            self.write()

    def write(self) -> None:
        """Writes the table of all that is known, in the order of the cases."""
        self.written = time.monotonic()
        results.write(self.table, self._known_results())

    def close(self) -> BatchSummary:
        """Notes the end."""
        failed, warned = _failed_and_warned(self._known_results())
        done = self.told.difference(failed)
        left = {item.id for item in self.items} - self.told - self.skipped
        skipped = self.skipped.difference(failed)
        summary = BatchSummary(len(done), len(skipped), len(left), self.table, failed, warned)
        counts = {name: getattr(summary, name) for name in ("done", "skipped", "failed", "left")}
        self.journal.append({"event": "end", "time": time.time(), **counts})
        self.show({"event": "end", **counts, "results": str(summary.results)})
        return summary

    def _known_results(self) -> list[CaseResult]:
        keys = ((item.id, model.name) for item in self.items for model in self.models)
        return [self.known[key] for key in keys if key in self.known]

    def _is_done(self, item: Item, model: ModelIdentity) -> bool:
        result = self.known.get((item.id, model.name))
        if result is None or result.model_sha256 != model.sha256:
            return False
        stamp = self.stamps[item.id]
        if result.options != self.options or stamp != result.stamp:
            return False
        if result.status == "failed":
            return result.lasting and not self.retry_failed
        folder = Path(self.order.folder)
        try:
            return stamp is not None and all(
                fingerprint.digest([folder / name]) == known for name, known in result.files.items()
            )
        except OSError:
            return False


def _failed_and_warned(found: Sequence[CaseResult]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the cases that failed by any model, and of the others with a warning."""
    failed = dict.fromkeys(result.case for result in found if result.status == "failed")
    warned = dict.fromkeys(result.case for result in found if result.warnings)
    return tuple(failed), tuple(case for case in warned if case not in failed)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(
            f"the output folder cannot be made: {error.strerror or error}",
            where=folder,
            remedy="correct the permissions, or choose another folder",
            reason="disk",
        ) from error


def _behind(shard: str | None) -> str:
    return f"-{shard}" if shard else ""
