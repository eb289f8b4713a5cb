"""The state of a batch: which cases are done, and what is left to do."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TextIO

from medseg.batch_processing import fingerprint, results
from medseg.batch_processing.case_discovery import Item
from medseg.batch_processing.journal import Journal, Key, Record
from medseg.batch_processing.messages import MASKS, BatchConfig, CaseJob
from medseg.batch_processing.summary import BatchSummary, failed_and_warned
from medseg.errors import ResourceError
from medseg.inference.case_result import CaseResult, ModelIdentity
from medseg.io.sidecar import LABELS, write_json
from medseg.visualization import thumbnails

_TABLE_SECONDS = 60.0


class Ledger:
    """The results of all cases, those of earlier runs included; it writes the journal and the table.

    Args:
        items: All cases of the batch.
        config: How every case is processed.
        before: Results of earlier runs.
        journal: Where events are added.
        thumbnails_file: Where thumbnails are added.
        table: Path of the table.
        show: Called with every event that is written to the journal.
        retry_failed: Whether cases that failed before are tried again.
    """

    def __init__(
        self,
        items: Sequence[Item],
        config: BatchConfig,
        before: dict[Key, CaseResult],
        *,
        journal: Journal,
        thumbnails_file: TextIO,
        table: Path,
        show: Callable[[Record], None],
        retry_failed: bool,
    ) -> None:
        self.items, self.config, self.journal, self.show = items, config, journal, show
        self.thumbnails_file, self.table = thumbnails_file, table
        self.retry_failed = retry_failed
        self.known = before
        self.options = fingerprint.digest_of(config.decisive | {"medseg": version("medseg")})
        self.stamps: dict[str, str | None] = {}
        self.patients = {item.id: item.patient for item in items}
        self.models: list[ModelIdentity] = []
        self.skipped: set[str] = set()
        self.finished: set[str] = set()
        self.written = time.monotonic()

    def open(self, models: list[ModelIdentity], command: str) -> list[CaseJob]:
        """Writes the start to the journal and returns the jobs to do.

        Raises:
            ResourceError: the disk fails (``disk``).
        """
        self.models = models
        process = {"pid": os.getpid(), "host": socket.gethostname(), "medseg": version("medseg")}
        shard = self.journal.path.stem.partition("-")[2]
        start = {"event": "start", "time": time.time(), "cases": len(self.items), "shard": shard, **process}
        details = {"command": command, "models": [model.to_json() for model in models]}
        self.journal.append({**start, **details, "options": self.config.decisive})
        for model in models:
            subfolder = model.name if len(models) > 1 else ""
            place = Path(self.config.folder) / MASKS / subfolder / LABELS
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
        """Records the results of a case.

        Raises:
            ResourceError: the disk fails (``disk``).
        """
        for result in found:
            case = result.case
            if result.thumbnail:
                self.thumbnails_file.write(thumbnails.line(case, result.model, result.thumbnail))
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
            self.finished.add(case)
            self.show(whole.to_json())
        for result in found:
            if result.reason == "disk":
                raise ResourceError(
                    f"the batch stops because files cannot be written: {result.message}",
                    where=self.config.folder,
                    remedy="free some space, then continue with --resume",
                    reason="disk",
                )
        if time.monotonic() - self.written > _TABLE_SECONDS:
            self.write()

    def write(self) -> None:
        """Writes the table of all known results, in the order of the cases."""
        self.written = time.monotonic()
        results.write(self.table, self._known_results())

    def close(self) -> BatchSummary:
        """Writes the end to the journal and returns the summary."""
        failed, warned = failed_and_warned(self._known_results())
        done = self.finished.difference(failed)
        left = {item.id for item in self.items} - self.finished - self.skipped
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
        folder = Path(self.config.folder)
        try:
            return stamp is not None and all(
                fingerprint.digest([folder / name]) == known for name, known in result.files.items()
            )
        except OSError:
            return False
