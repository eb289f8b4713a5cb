"""Which cases of a batch to annotate next: those of which the networks are least certain."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, nan
from pathlib import Path

from medseg.batch_processing.results import NAME
from medseg.errors import UsageError
from medseg.inference.case_result import CaseResult
from medseg.io.overwrite_guard import OverwriteGuard
from medseg.system.atomic_write import replacing
from medseg.system.csv_cells import to_cell
from medseg.system.error_conversion import damaged_table

_SILENT = "no entropy"
_COLUMNS = ("case", "entropy_bits", "note", "input")


@dataclass(frozen=True)
class RankedCase:
    """A case of a batch, with the uncertainty of its mask.

    Attributes:
        case: Id of the case.
        entropy_bits: Mean entropy of its labels, over all models, in 0..1; nan if no label was found.
        note: ``nothing found``, ``no entropy`` (a mask of a method without probabilities), the reason of a
            failure, or empty.
        input: Path of the scan.

    Example:
        >>> medseg.RankedCase("a", 0.4).entropy_bits
        0.4
    """

    case: str
    entropy_bits: float
    note: str = ""
    input: str = ""


def rank_cases(folder: str | Path, output: str | Path | None = None) -> tuple[RankedCase, ...]:
    """The cases of a batch in the order in which to annotate them, the least certain first.

    The measure is the mean of the entropies in ``results.csv``, see
    :class:`medseg.inference.uncertainty.Entropy`. Cases in which no label was found come first, because a
    missed structure has no entropy; cases that failed, and masks without an entropy, come last. Compare
    entropies within a batch only; between models they mean little.

    Args:
        folder: Output folder of :func:`medseg.batch`, or its ``results.csv``.
        output: CSV to write, with the columns case, entropy_bits, note and input.

    Raises:
        UsageError: there is no such table (``nothing-to-report``), it is damaged (``table``), none of its
            masks has an entropy (``no-entropy``), or the output would replace another file (``foreign-file``,
            ``overwrites-input``).
        ResourceError: the disk fails (``disk``).

    Example:
        >>> _ = medseg.batch("dataset/images", "ranked", model="model.safetensors",
        ...                  resources=medseg.BatchResources(workers=1))
        >>> len(medseg.rank_cases("ranked"))
        4
    """
    path = Path(folder)
    path = path / NAME if path.is_dir() else path
    if not path.is_file():
        raise UsageError(
            f"there is no {NAME}",
            where=path,
            remedy="give the output folder of medseg batch",
            reason="nothing-to-report",
        )
    if output is not None:
        OverwriteGuard([path]).check(Path(output), is_own=_is_own)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            results = [CaseResult.from_row(row) for row in csv.DictReader(file)]
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise damaged_table(error, path, remedy="write it again with medseg batch") from error
    by_case: dict[str, list[CaseResult]] = {}
    for result in results:
        by_case.setdefault(result.case, []).append(result)
    ranked = sorted((_ranked(each) for each in by_case.values()), key=_order)
    notes = {each.note for each in ranked if not each.note.startswith("failed")}
    if notes == {_SILENT}:
        raise UsageError(
            "no case can be ranked: none of the masks has an entropy",
            where=path,
            remedy="run medseg batch in a new folder with a network: thresholds give no probabilities",
            reason="no-entropy",
        )
    if output is not None:
        _write(Path(output), ranked)
    return tuple(ranked)


def _ranked(results: Sequence[CaseResult]) -> RankedCase:
    first, done = results[0], [each for each in results if each.status != "failed"]
    bits = [value for each in done for value in each.entropy.values()]
    silent = not bits and any(volume > 0 for each in done for volume in each.volumes_ml.values())
    note = "" if bits else _SILENT if silent else "nothing found" if done else f"failed: {first.reason}"
    mean = sum(bits) / len(bits) if bits else nan
    return RankedCase(first.case, mean, note, " | ".join(first.inputs))


def _order(case: RankedCase) -> tuple[bool, float, str]:
    known = case.entropy_bits == case.entropy_bits  # not nan
    last = case.note.startswith("failed") or case.note == _SILENT
    return last, -case.entropy_bits if known else -inf, case.case


def _write(path: Path, ranked: Sequence[RankedCase]) -> None:
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
    for each in ranked:
        bits = "" if each.entropy_bits != each.entropy_bits else f"{each.entropy_bits:.4f}"
        table.writerow([to_cell(cell) for cell in (each.case, bits, each.note, each.input)])
    with replacing(path) as fresh:
        fresh.write_text(text.getvalue(), encoding="utf-8", newline="")


def _is_own(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(64).startswith(",".join(_COLUMNS).encode())
