"""Runs a batch: every case is done once, and a failure never loses finished work.

The output folder::

    masks/<case>.nii.gz   with several models masks/<model>/<case>.nii.gz; <case>.png if scans are pictures
    masks/labels.json     names and values of the labels
    results.csv           one row per case and model
    thumbnails.jsonl      a small picture of each mask, for medseg report
    journal.jsonl         what was done, and when

A shard has a journal and a table of its own, such as journal-3-of-10.jsonl;
:func:`medseg.batch_processing.summary.merge_batch` makes one table from all of them.

A case is done if the journal says so for the same input, the same model and the same options, and if its mask
is still the file that was written.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from medseg.batch_processing import results
from medseg.batch_processing.case_discovery import Item
from medseg.batch_processing.folder_lock import lock_folder
from medseg.batch_processing.intents import SCRATCH, clear_scratch, read_intents
from medseg.batch_processing.journal import (
    NAME,
    Journal,
    Key,
    Record,
    case_results,
    is_unfinished_journal,
    journals,
    latest,
    next_sequence,
    read,
    written_digests,
)
from medseg.batch_processing.ledger import Ledger, Redo
from medseg.batch_processing.messages import BatchConfig, CaseJob, StopRequest
from medseg.batch_processing.output_files import OutputFiles, keep_edited_table
from medseg.batch_processing.process_pool import PoolSize, ProcessPool
from medseg.batch_processing.settings import BatchMonitor, BatchResources
from medseg.batch_processing.summary import BatchSummary
from medseg.batch_processing.thumbnail_log import NAME as THUMBNAILS
from medseg.batch_processing.thumbnail_log import ThumbnailLog
from medseg.errors import MedsegError, UsageError
from medseg.inference.case_result import CaseResult, ModelIdentity
from medseg.io.overwrite_guard import OverwriteGuard
from medseg.system.output_folder import make_output_folder


class Workers(Protocol):
    """Does the jobs: processes of this machine, or actors of a cluster."""

    def models(self) -> list[ModelIdentity]: ...  # noqa: D102

    def run(  # noqa: D102
        self, jobs: Sequence[CaseJob], report: Callable[[list[CaseResult]], None], stop: StopRequest
    ) -> None: ...

    def end(self) -> None: ...  # noqa: D102


def run(
    items: Sequence[Item],
    config: BatchConfig,
    *,
    resume: bool = False,
    retry_failed: bool = False,
    redo_edited: bool = False,
    resources: BatchResources | None = None,
    monitor: BatchMonitor | None = None,
    start: Callable[[BatchConfig, int], Workers] | None = None,
) -> BatchSummary:
    """Segments every item that is not done yet.

    Args:
        items: The cases, as found by :func:`medseg.batch_processing.case_discovery.items`.
        config: How every case is processed. Its folder need not exist; its scratch folder is set here.
        resume: Continue in a folder that holds results; without it such a folder is refused.
        retry_failed: Try failed cases again, also those whose scan was refused. Cases that failed for lack of
            memory or disk space are always tried again.
        redo_edited: Do cases again whose mask was edited since; a copy of that mask is kept beside.
        resources: Processes, memory and time. The shard only names files: ``items`` are its cases already.
        monitor: Follows the progress, and may stop the batch.
        start: Starts other workers than processes of this machine, for a number of cases.

    Raises:
        UsageError: the folder holds results and ``resume`` is not given (``has-results``), another process is
            using it (``in-use``), or as :meth:`medseg.batch_processing.ledger.Ledger.open`.
        ResourceError: the disk fails (``disk``), or no worker can be started.
        ModelRefused: a model is damaged.
    """
    resources, monitor = resources or BatchResources(), monitor or BatchMonitor()
    folder, shard = Path(os.path.abspath(config.folder)), resources.shard_name  # noqa: PTH100
    make_output_folder(folder)
    with ExitStack() as stack:
        stack.enter_context(lock_folder(folder, shard))
        records = read(journals(folder))
        before = _earlier_results(folder, shard, records, allowed=resume or retry_failed or redo_edited)
        _check_tables(folder, shard, records)
        journal = Journal(folder / _with_shard(NAME, shard), first=next_sequence(records))
        stack.callback(journal.close)
        files = _output_files(folder, records, journal)
        scratch = folder / _with_shard(SCRATCH, shard)
        shutil.rmtree(scratch, ignore_errors=True)
        recorded: dict[Key, CaseResult] = {}
        stack.callback(clear_scratch, scratch, folder, recorded)
        config = replace(config, folder=str(folder), scratch=str(scratch))
        pictures = ThumbnailLog(folder / _with_shard(THUMBNAILS, shard))
        stack.callback(pictures.close)
        if start is None:
            workers: Workers = _processes(config, resources, len(items))
        else:
            workers = start(config, len(items))
        stack.callback(workers.end)
        recorded.update(before)
        ledger = Ledger(
            items,
            config,
            recorded,
            files,
            journal=journal,
            thumbnail_log=pictures,
            table=folder / _with_shard(results.NAME, shard),
            redo=Redo(retry_failed, redo_edited),
        )
        ledger.show = monitor.show
        table, recorded_before = _with_shard(results.NAME, shard), list(case_results(records))
        ledger.keep_table = lambda: keep_edited_table(folder, table, recorded_before)
        jobs = ledger.open(workers.models(), monitor.command)
        try:
            if jobs:
                workers.run(jobs, ledger.enter, monitor.stop)
        except BaseException:
            with suppress(MedsegError):  # the first error tells more
                ledger.write()
            raise
        ledger.write()
        return ledger.close()


def _processes(config: BatchConfig, resources: BatchResources, cases: int) -> ProcessPool:
    """Worker processes of this machine."""
    size = PoolSize.planned(
        cases=cases,
        workers=resources.workers,
        memory_bytes=resources.memory_bytes,
        on_gpu=config.device != "cpu",
    )
    return ProcessPool(config, size, case_seconds=60 * resources.case_minutes)


def _output_files(folder: Path, records: Sequence[Record], journal: Journal) -> OutputFiles:
    """The files of earlier runs; those that an interrupted run was writing are entered into the journal."""
    intents = read_intents(folder)
    if intents:
        journal.append({"event": "interrupted", "time": time.time(), "files": intents})
    return OutputFiles(folder, written_digests([*records, {"files": intents}]))


def _earlier_results(
    folder: Path, shard: str | None, records: Sequence[Record], *, allowed: bool
) -> dict[Key, CaseResult]:
    """Results of earlier runs and of other shards; refuses those of the same run, unless they are allowed."""
    known = latest(records)
    own = folder / _with_shard(NAME, shard)
    earlier = known if shard is None else latest(read([own])) if own.exists() else {}
    if earlier and not allowed:
        raise UsageError(
            f"this folder already holds results of {len({case for case, _ in earlier})} cases",
            where=folder,
            remedy="continue with --resume, or choose another folder",
            reason="has-results",
        )
    return known


def _check_tables(folder: Path, shard: str | None, records: Sequence[Record]) -> None:
    """Refuses a folder without a batch that has files where a batch writes its own."""
    if any(record.get("event") == "start" for record in records):
        return
    for name in (results.NAME, THUMBNAILS, NAME):
        path = folder / _with_shard(name, shard)
        if path.exists() and path.stat().st_size:
            OverwriteGuard([]).check(path, is_own=is_unfinished_journal)


def _with_shard(name: str, shard: str | None) -> str:
    """The name of a file of a shard, such as ``journal-3-of-10.jsonl``."""
    path = Path(name)
    return f"{path.stem}-{shard}{path.suffix}" if shard else name
