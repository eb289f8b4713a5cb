"""How a batch ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.batch_processing import results
from medseg.batch_processing.journal import case_results, journals, latest, read, starts
from medseg.batch_processing.output_files import keep_edited_table
from medseg.errors import UsageError
from medseg.inference.case_result import WAIT, CaseResult

# Networks that wait for more than this share of the time are not the limit.
_MUCH = 0.1


@dataclass(frozen=True)
class BatchSummary:
    """How a batch ended. Numbers count cases; a case segmented by several models counts once.

    Attributes:
        done: Cases segmented in this run.
        skipped: Cases that were done before.
        left: Cases not reached because the batch was asked to stop.
        results: Path of the table.
        failures: Names of the failed cases, of this run or an earlier one.
        warned: Names of the cases that were segmented with a warning, in this run or an earlier one.
        edited: Names of the cases whose mask was edited since, and was kept.
        waited: Share of the time that networks waited for scans, in 0..1; None if no case followed another.

    Example:
        >>> results = Path("out/results.csv")
        >>> summary = medseg.BatchSummary(done=9, skipped=0, left=0, results=results, failures=("c7",))
        >>> summary.failed
        1
    """

    done: int
    skipped: int
    left: int
    results: Path
    failures: tuple[str, ...] = ()
    warned: tuple[str, ...] = ()
    edited: tuple[str, ...] = ()
    waited: float | None = None

    @property
    def limit(self) -> str:
        """What the speed of the batch was bounded by: ``reading``, ``network``, or nothing if unknown."""
        if self.waited is None:
            return ""
        return "reading" if self.waited > _MUCH else "network"

    @property
    def failed(self) -> int:
        """Number of failed cases, of this run or an earlier one."""
        return len(self.failures)


def failed_and_warned(found: Sequence[CaseResult]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the cases that failed with any model, and of the other cases with a warning."""
    failed = dict.fromkeys(result.case for result in found if result.status == "failed")
    warned = dict.fromkeys(result.case for result in found if result.warnings)
    return tuple(failed), tuple(case for case in warned if case not in failed)


def waited_share(found: Iterable[CaseResult]) -> float | None:
    """The share of the time that networks waited for scans, over the cases that followed another one."""
    # The last result of a case has the sums over its models.
    seconds = {result.case: result.seconds for result in found if WAIT in result.seconds}
    waited = sum(each[WAIT] for each in seconds.values())
    total = waited + sum(each.get("segment", 0.0) for each in seconds.values())
    return waited / total if total else None


def merge_batch(folder: str | Path, *, bom: bool = False) -> BatchSummary:
    """Writes one table for all shards of a batch, from their journals; shards may still be running.

    Args:
        folder: Output folder of the batch.
        bom: Start the table with a byte order mark, so that Excel reads it as UTF-8.

    Raises:
        UsageError: the folder has no journal (``no-journal``).

    Example:
        >>> options = medseg.BatchResources(workers=1, shard="1/2")
        >>> _ = medseg.batch("dataset/labels", "halves", model="threshold", resources=options,
        ...                  options=medseg.BatchOptions(any_modality=True))
        >>> medseg.merge_batch("halves").results.name
        'results.csv'
    """
    folder = Path(folder)
    records = read(journals(folder))
    if not records:
        raise UsageError(
            "this folder has no journal",
            where=folder,
            remedy="give the output folder of medseg batch",
            reason="no-journal",
        )
    known = latest(records)
    planned = {start.shard: start.cases for start in starts(records)}
    ordered = [known[key] for key in sorted(known)]
    failed, warned = failed_and_warned(ordered)
    cases = {result.case for result in ordered}
    left = max(0, sum(planned.values()) - len(cases))
    keep_edited_table(folder, results.NAME, list(case_results(records)))
    table = results.write(folder / results.NAME, ordered, bom=bom)
    return BatchSummary(0, len(cases) - len(failed), left, table, failed, warned)
