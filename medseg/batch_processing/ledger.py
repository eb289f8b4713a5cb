"""The state of a batch: which cases are done, and what is left to do."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medseg.batch_processing import fingerprint, results
from medseg.batch_processing.case_discovery import Item
from medseg.batch_processing.input_digest import input_digest
from medseg.batch_processing.journal import Journal, Key, Record
from medseg.batch_processing.messages import MASKS, BatchConfig, CaseJob
from medseg.batch_processing.output_files import OutputFiles, mask_name, names_of
from medseg.batch_processing.summary import BatchSummary, failed_and_warned, waited_share
from medseg.batch_processing.thumbnail_log import ThumbnailLog
from medseg.errors import ResourceError, UsageError, listed
from medseg.inference.batch_events import BatchEnd, BatchStart
from medseg.inference.case_result import CaseResult, ModelIdentity
from medseg.io.dicomweb.address import written
from medseg.io.overwrite_guard import OverwriteGuard
from medseg.io.sidecar import LABELS, write_json
from medseg.system.notices import Notice, notify
from medseg.system.own_version import own_version

_TABLE_SECONDS = 60.0


@dataclass(frozen=True)
class Redo:
    """Which finished cases are done again.

    Attributes:
        failed: Cases that failed.
        edited: Cases with a file that was edited since; a copy of each is kept.
    """

    failed: bool = False
    edited: bool = False


class Ledger:
    """The results of all cases, those of earlier runs included; it writes the journal and the table.

    Args:
        items: All cases of the batch.
        config: How every case is processed.
        before: Results of earlier runs.
        files: The output folder.
        journal: Where events are added.
        thumbnail_log: Where thumbnails are added.
        table: Path of the table.
        redo: Which finished cases are done again.
    """

    def __init__(
        self,
        items: Sequence[Item],
        config: BatchConfig,
        before: dict[Key, CaseResult],
        files: OutputFiles,
        *,
        journal: Journal,
        thumbnail_log: ThumbnailLog,
        table: Path,
        redo: Redo,
    ) -> None:
        self.items, self.config, self.known, self.files = items, config, before, files
        self.journal, self.thumbnail_log, self.table, self.redo = journal, thumbnail_log, table, redo
        self.show: Callable[[Record], None] = lambda event: None
        self.keep_table: Callable[[], None] = lambda: None  # called once, before the table is written
        self.options = fingerprint.digest_of(config.decisive | {"medseg": own_version()})
        self.stamps: dict[str, str | None] = {}
        self.inodes: dict[str, str] = {}
        self.sources = {item.id: item for item in items}
        self.models: list[ModelIdentity] = []
        self.skipped: set[str] = set()
        self.finished: set[str] = set()
        self.edited: dict[Key, tuple[str, ...]] = {}
        self.written = time.monotonic()

    def open(self, models: list[ModelIdentity], command: str) -> list[CaseJob]:
        """Writes the start to the journal and returns the jobs to do.

        Raises:
            UsageError: an output would replace an input (``overwrites-input``) or a file that no batch wrote
                (``foreign-file``), or the folder holds masks of another model (``other-model``).
            ResourceError: the disk fails (``disk``).
        """
        self.models = models
        self._check_models()
        self._check_outputs()
        start = BatchStart(
            own_version(),
            len(self.items),
            tuple(models),
            self.config.decisive,
            command,
            shard=self.journal.path.stem.partition("-")[2],
            pid=os.getpid(),
            host=socket.gethostname(),
            time=time.time(),
        )
        self.journal.append(start.to_json())
        for model in models:
            place = self._labels_file(model)
            place.parent.mkdir(parents=True, exist_ok=True)
            write_json(place, {"labels": model.to_json()["labels"]})
        listings: fingerprint.Listings = {}
        jobs, bad = [], []
        for item in self.items:
            if item.error is not None:
                bad.append(item)
                continue
            self.stamps[item.id] = fingerprint.stamp(item.images, listings)
            self.inodes[item.id] = fingerprint.inodes(item.images, listings)
            todo = tuple(number for number, model in enumerate(models) if self._is_due(item, model))
            if todo:
                jobs.append(CaseJob(item.id, tuple(map(str, item.images)), todo))
            else:
                self.skipped.add(item.id)
        self._report_absent_cases()
        failed = self.skipped.intersection(failed_and_warned(self._known_results())[0])
        due = len(jobs) + len(bad)
        self.show(start.progress(skipped=len(self.skipped), failed=len(failed), todo=due))
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
                self.thumbnail_log.add(result)
            if result.status == "failed":
                result = self._without_stale_mask(result)
            whole = replace(
                result,
                thumbnail="",
                slices=(),
                lung={},
                time=time.time(),
                patient=self.sources[case].patient,
                study=self.sources[case].study,
                inputs=tuple(map(written, self.sources[case].images)),
                stamp=self.stamps.get(case),
                inodes=self.inodes.get(case, ""),
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
        keep, self.keep_table = self.keep_table, lambda: None
        keep()
        results.write(self.table, self._known_results(), bom=self.config.bom)

    def close(self) -> BatchSummary:
        """Writes the end to the journal and returns the summary."""
        failed, warned = failed_and_warned(self._known_results())
        done = self.finished.difference(failed)
        left = {item.id for item in self.items} - self.finished - self.skipped
        skipped = self.skipped.difference(failed)
        edited = tuple(dict.fromkeys(case for case, _ in self.edited))
        waited = waited_share(result for result in self._known_results() if result.case in self.finished)
        summary = BatchSummary(len(done), len(skipped), len(left), self.table, failed, warned, edited, waited)
        end = BatchEnd(
            summary.done, summary.skipped, summary.failed, summary.left, len(edited), time=time.time()
        )
        self.journal.append(end.to_json())
        self.show(end.progress(results=str(summary.results)))
        return summary

    def _known_results(self) -> list[CaseResult]:
        keys = ((item.id, model.name) for item in self.items for model in self.models)
        return [self._with_edit(key, self.known[key]) for key in keys if key in self.known]

    def _with_edit(self, key: Key, result: CaseResult) -> CaseResult:
        if key not in self.edited:
            return result
        notices = (Notice("mask-edited", _edited(name)) for name in self.edited[key])
        return replace(result, notices=(*result.notices, *notices))

    def _names(self, case: str, model: ModelIdentity) -> tuple[str, ...]:
        """The files of a case: those that it would get now, and those that it has got before."""
        before = self.known.get((case, model.name))
        names = (*names_of(case, model, self.config), *(before.files if before else ()))
        return tuple(dict.fromkeys(names))

    def _mask(self, case: str, model: str) -> str:
        return mask_name(case, model, self.config)

    def _labels_file(self, model: ModelIdentity) -> Path:
        return (Path(self.config.folder) / self._mask("x", model.name)).with_name(LABELS)

    def _report_absent_cases(self) -> None:
        """Gives notice of cases of earlier runs whose scans are gone, because the table leaves them out."""
        if "-" in self.journal.path.stem:  # a shard: the cases of the others are not absent
            return
        absent = sorted({case for case, _ in self.known} - self.sources.keys())
        if absent:
            notify(
                "cases-absent",
                f"{len(absent)} case(s) of earlier runs are not among the scans, and left out of the table: "
                f"{listed(absent, 5)}",
                path=self.config.folder,
            )

    def _check_models(self) -> None:
        """Refuses to mix masks of different models, whose numbers may mean different labels."""
        for model in self.models:
            for (case, name), result in self.known.items():
                if name != model.name and result.mask and result.mask == self._mask(case, model.name):
                    raise self._other_model(f"masks of model {name}, not {model.name}")
            place = self._labels_file(model)
            try:
                before = json.loads(place.read_text(encoding="utf-8"))
            except FileNotFoundError:
                continue
            except (OSError, ValueError):
                before = None
            if before != {"labels": model.to_json()["labels"]}:
                raise self._other_model(f"masks with other labels: see {place}")

    def _other_model(self, problem: str) -> UsageError:
        return UsageError(
            f"this folder holds {problem}",
            where=self.config.folder,
            remedy="choose another folder, or give the same labels (--roi), and all models in one run",
            reason="other-model",
        )

    def _check_outputs(self) -> None:
        """Refuses outputs that would replace inputs, or files that no batch wrote."""
        guard = OverwriteGuard(image for item in self.items for image in item.images if not image.is_dir())
        for item in self.items:
            for model in self.models:
                for name in names_of(item.id, model, self.config):
                    is_own = self.files.knows(name)
                    guard.check(Path(self.config.folder) / name, is_own=lambda path, is_own=is_own: is_own)  # type: ignore[misc]

    def _is_due(self, item: Item, model: ModelIdentity) -> bool:
        """Whether a case is to be segmented; its edited files are kept, or renamed to be done again."""
        key = item.id, model.name
        result = self.known.get(key)
        edited = [
            name
            for name in self._names(item.id, model)
            if self.files.knows(name) and self.files.state(name) == "foreign"
        ]
        if edited and not self.redo.edited:
            self.edited[key] = tuple(edited)
            for name in edited:
                notify("mask-edited", _edited(name), path=Path(self.config.folder) / name)
            return False
        for name in edited:
            kept = self.files.set_aside(name, "edited")
            notify("mask-set-aside", f"the edited file was renamed to {kept}", path=name)
        return bool(edited) or result is None or not self._is_done(item, model, result)

    def _is_done(self, item: Item, model: ModelIdentity, result: CaseResult) -> bool:
        stamp = self.stamps[item.id]
        same = result.model_sha256 == model.sha256 and result.options == self.options
        if not same or stamp is None or stamp != result.stamp:
            # A failed case may have no input at all: then it has no stamp.
            return same and stamp == result.stamp and result.status == "failed" and self._stays_failed(result)
        inodes = self.inodes[item.id]
        if result.inodes and inodes != result.inodes:
            if not result.input_sha256 or input_digest(item.images, self.config) != result.input_sha256:
                return False
            result = replace(result, inodes=inodes)
            self.journal.append(result.to_json())  # so that it is not read again the next time
            self.known[item.id, model.name] = result
        if result.status == "failed":
            return self._stays_failed(result)
        if not self.files.is_complete(result):
            return False
        self.thumbnail_log.ensure(result, item.images, Path(self.config.folder), model, self.config)
        return True

    def _stays_failed(self, result: CaseResult) -> bool:
        return result.lasting and not self.redo.failed

    def _without_stale_mask(self, result: CaseResult) -> CaseResult:
        """Renames the files of an earlier run beside a failed row; the result then says so."""
        (model,) = (each for each in self.models if each.name == result.model)
        notices = []
        for name in self._names(result.case, model):
            try:
                kept = self.files.set_aside(name, "previous")
            except OSError:  # usually there is none
                continue
            what = "mask" if name.startswith(f"{MASKS}/") else "file"
            notices.append(Notice("mask-set-aside", f"the {what} of an earlier run was renamed to {kept}"))
        return replace(result, notices=(*result.notices, *notices))


def _edited(name: str) -> str:
    what = "the mask" if name.startswith(f"{MASKS}/") else name
    return f"{what} was edited after it was written, and was kept; --redo-edited replaces it"
