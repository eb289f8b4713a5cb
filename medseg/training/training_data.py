"""The prepared cases of a training, and the checks that compare them with one another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from medseg.datasets.manifest import Case
from medseg.datasets.validation import Entry, apply_case_rules, compare, compare_splits, refuse, subject_of
from medseg.errors import UsageError
from medseg.recipe import Recipe, digest
from medseg.training.case_cache import CachedCase, cached, report_warnings
from medseg.training.hardware import is_first_process


@dataclass(frozen=True)
class TrainingData:
    """The prepared cases of a training.

    Attributes:
        train: Cases that the network learns from.
        val: Cases that measure it after an epoch; may be empty.
    """

    train: tuple[CachedCase, ...]
    val: tuple[CachedCase, ...]

    @property
    def digests(self) -> dict[str, str]:
        """Digest of each case's files and preparation, by case id."""
        return {case.id: case.digest for case in (*self.train, *self.val)}

    @property
    def digest(self) -> str:
        """Hexadecimal digest of all prepared cases, whatever their ids and order."""
        return digest(sorted(case.digest for case in (*self.train, *self.val)))


def training_cases(cases: Sequence[Case]) -> tuple[Case, ...]:
    """The cases of split ``train``, followed by those of split ``val``.

    Raises:
        UsageError: no case has split ``train`` (``no-training-case``).
    """
    chosen = tuple(case for split in ("train", "val") for case in cases if case.split == split)
    if not chosen or chosen[0].split != "train":
        raise UsageError(
            "no case has split 'train'",
            where="manifest",
            remedy="fill the split column",
            reason="no-training-case",
        )
    return chosen


def prepare_cases(
    cases: Sequence[Case],
    recipe: Recipe,
    cache: Path,
    *,
    processes: int,
    on_case: Callable[[int, int], None],
) -> TrainingData:
    """The prepared cases, made now or found in the cache.

    Several processes begin at different cases and so share the work.

    Args:
        cases: From :func:`training_cases`.
        recipe: Defines the preparation.
        cache: Folder of prepared cases.
        processes: Number of training processes.
        on_case: Called with the number of prepared cases and the number of all cases.

    Raises:
        InputRefused: `medseg check` finds an error in a case, or in the data set as a whole, such as a
            case in two splits (``data-errors``).
        UsageError: a case has no label.
    """
    offset = rank_zero_only.rank * len(cases) // processes
    prepared: dict[str, CachedCase] = {}
    for number, case in enumerate((*cases[offset:], *cases[:offset]), start=1):
        prepared[case.id] = cached(case, recipe, cache)
        on_case(number, len(cases))
    _check_data_set(cases, prepared, recipe)
    train, val = (
        tuple(prepared[case.id] for case in cases if case.split == split) for split in ("train", "val")
    )
    return TrainingData(train, val)


def _check_data_set(cases: Sequence[Case], prepared: dict[str, CachedCase], recipe: Recipe) -> None:
    """Refuses errors that only the whole data set shows, such as leaks between splits; reports warnings."""
    entries = [Entry(case, prepared[case.id].facts(), subject_of(case)) for case in cases]
    findings = [each for entry in entries for each in apply_case_rules(entry.case, entry.facts, recipe)]
    findings += [*compare(entries, recipe), *compare_splits(cases, recipe)]
    refuse(findings)
    if is_first_process():
        report_warnings(findings)
