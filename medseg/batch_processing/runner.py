"""Runs a batch: every case is done once, and a failure never loses finished work.

The output folder::

    masks/<case>.nii.gz   with several models masks/<model>/<case>.nii.gz
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
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from medseg.batch_processing import results
from medseg.batch_processing.case_discovery import Item
from medseg.batch_processing.folder_lock import lock_folder
from medseg.batch_processing.journal import NAME, Journal, Key, journals, latest, read
from medseg.batch_processing.ledger import Ledger
from medseg.batch_processing.messages import BatchConfig, CaseJob, StopRequest
from medseg.batch_processing.process_pool import PoolSize, ProcessPool
from medseg.batch_processing.settings import BatchMonitor, BatchResources
from medseg.batch_processing.summary import BatchSummary
from medseg.errors import ResourceError, UsageError
from medseg.inference.case_result import CaseResult, ModelIdentity

_SCRATCH = ".scratch"


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
        resources: Processes, memory and time. The shard only names files: ``items`` are its cases already.
        monitor: Follows the progress, and may stop the batch.
        start: Starts other workers than processes of this machine, for a number of cases.

    Raises:
        UsageError: the folder holds results and ``resume`` is not given (``has-results``), or another
            process is using it (``in-use``).
        ResourceError: the disk fails (``disk``), or no worker can be started.
        ModelRefused: a model is damaged.
    """
    resources, monitor = resources or BatchResources(), monitor or BatchMonitor()
    folder, shard = Path(os.path.abspath(config.folder)), resources.shard_name  # noqa: PTH100
    memory_bytes = resources.memory_bytes
    _make(folder)
    with ExitStack() as stack:
        stack.enter_context(lock_folder(folder, shard))
        before = _earlier_results(folder, shard, allowed=resume or retry_failed)
        scratch = folder / _with_shard(_SCRATCH, shard)
        shutil.rmtree(scratch, ignore_errors=True)
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        config = replace(config, folder=str(folder), scratch=str(scratch))
        journal = Journal(folder / _with_shard(NAME, shard))
        stack.callback(journal.close)
        pictures = stack.enter_context((folder / _with_shard("thumbnails.jsonl", shard)).open("a"))
        if start is None:
            size = PoolSize.planned(cases=len(items), workers=resources.workers, memory_bytes=memory_bytes)
            workers: Workers = ProcessPool(config, size, case_seconds=60 * resources.case_minutes)
        else:
            workers = start(config, len(items))
        stack.callback(workers.end)
        ledger = Ledger(
            items,
            config,
            before,
            journal=journal,
            thumbnails_file=pictures,
            table=folder / _with_shard(results.NAME, shard),
            show=monitor.show,
            retry_failed=retry_failed,
        )
        jobs = ledger.open(workers.models(), monitor.command)
        try:
            if jobs:
                workers.run(jobs, ledger.enter, monitor.stop)
        finally:
            ledger.write()
        return ledger.close()


def _earlier_results(folder: Path, shard: str | None, *, allowed: bool) -> dict[Key, CaseResult]:
    """Results of earlier runs and of other shards; refuses those of the same run, unless they are allowed."""
    known = latest(read(journals(folder)))
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


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(
            f"cannot create the output folder: {error.strerror or error}",
            where=folder,
            remedy="correct the permissions, or choose another folder",
            reason="disk",
        ) from error


def _with_shard(name: str, shard: str | None) -> str:
    """The name of a file of a shard, such as ``journal-3-of-10.jsonl``."""
    path = Path(name)
    return f"{path.stem}-{shard}{path.suffix}" if shard else name
