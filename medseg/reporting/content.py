"""Content of a report, read from the tables that ``medseg batch`` and ``medseg evaluate`` write."""

from __future__ import annotations

import csv
import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medseg.errors import UsageError
from medseg.images.mask_quality import descriptions
from medseg.inference.batch_events import BatchStart
from medseg.inference.case_result import CaseResult
from medseg.visualization import thumbnails

# Iglewicz and Hoaglin 1993, How to detect and handle outliers: modified z scores beyond 3.5 by the median
# and the median absolute deviation.
FAR = 3.5
_FEWEST = 8


@dataclass
class Row:
    """A case, with one of several models.

    Attributes:
        case: Id of the case.
        model: Name of the model; empty if there is only one.
        status: ``done`` or ``failed``.
        failure: Reason and message of a failed case.
        numbers: Numbers by column.
        findings: Descriptions of everything unusual.
        picture: WebP in base64; empty if there is none.
    """

    case: str
    model: str = ""
    status: str = "done"
    failure: str = ""
    numbers: dict[str, float] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    picture: str = ""


@dataclass(frozen=True)
class Pair:
    """Volume and truth of one label of one case."""

    case: str
    label: str
    volume_ml: float
    truth_ml: float
    dice: float


@dataclass(frozen=True)
class Content:
    """All content of a report.

    Attributes:
        title: Name of the folder.
        rows: Worst first: failed cases, then by number of findings and distance of the farthest outlier.
        columns: Names of the numbers, in order.
        pairs: Volumes and truths, as far as the truth is known.
        summary: Header and rows of the table of metrics; empty without truth.
        provenance: Pairs of name and value.
    """

    title: str
    rows: tuple[Row, ...]
    columns: tuple[str, ...]
    pairs: tuple[Pair, ...]
    summary: tuple[tuple[str, ...], ...]
    provenance: tuple[tuple[str, str], ...]


def gather(folder: Path) -> Content:
    """The content of the output folder of a batch, an evaluation, or both.

    Raises:
        UsageError: the folder has neither table (``nothing-to-report``), or one is damaged (``table``).
    """
    batch, evaluation = folder / "results.csv", folder / "evaluation.csv"
    if not batch.is_file() and not evaluation.is_file():
        raise UsageError(
            "this folder has neither results.csv nor evaluation.csv",
            where=folder,
            remedy="give the output folder of medseg batch or medseg evaluate",
            reason="nothing-to-report",
        )
    try:
        rows = _of_batch(_table(batch)) if batch.is_file() else []
        pairs: list[Pair] = []
        if evaluation.is_file():
            table = _table(evaluation)
            pairs = [_pair(row) for row in table if row["status"] == "ok"]
            rows = _with_scores(rows, table)
        summary = _summary(folder / "summary.csv")
        made = tuple(_provenance(folder))
    except (KeyError, ValueError, TypeError, AttributeError, OSError) as error:
        raise UsageError(
            f"cannot read its tables: {type(error).__name__}: {error}",
            where=folder,
            remedy="write them again with medseg batch or medseg evaluate",
            reason="table",
        ) from error
    pictures = thumbnails.read(sorted(folder.glob("thumbnails*.jsonl")))
    for row in rows:
        row.picture = pictures.get((row.case, row.model), "")
    _add_ratios(rows)
    columns = tuple(dict.fromkeys(name for row in rows for name in row.numbers))
    distances = _mark(rows, columns)
    several = len({row.model for row in rows}) > 1
    order = sorted(
        range(len(rows)),
        key=lambda n: (rows[n].status != "failed", -len(rows[n].findings), -distances[n], _worst(rows[n])),
    )
    ordered = [rows[n] for n in order]
    if not several:
        for row in ordered:
            row.model = ""
    return Content(folder.resolve().name, tuple(ordered), columns, tuple(pairs), summary, made)


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _of_batch(table: Sequence[dict[str, str]]) -> list[Row]:
    return [_row(CaseResult.from_row(line)) for line in table]


def _row(result: CaseResult) -> Row:
    """A row of the report, without a picture."""
    row = Row(result.case, result.model, result.status)
    if result.status == "failed":
        row.failure = f"{result.reason}: {result.message}"
    for label in result.labels:
        flags = result.qc_flags.get(label, {})
        row.findings += [f"{_words(label)} {text}" for text in descriptions(flags)]
        numbers = {"ml": result.volumes_ml.get(label), "components": flags.get("components")}
        numbers |= {name: result.intensities.get(label, {}).get(name) for name in ("mean", "sd")}
        row.numbers |= {
            _words(f"{label}_{name}"): float(value) for name, value in numbers.items() if value is not None
        }
    row.numbers |= {_words(f"{label}_entropy"): bits for label, bits in result.entropy.items()}
    row.findings += result.warnings
    return row


def _with_scores(rows: list[Row], table: Sequence[dict[str, str]]) -> list[Row]:
    """The rows with Dice and HD95 of each label added; cases without a row get one."""
    known = {row.case: row for row in rows}
    for line in table:
        row = known.get(line["case"])
        if row is None:
            row = known[line["case"]] = Row(line["case"])
        if line["status"] == "failed":
            row.status, row.failure = "failed", line["reason"]
            continue
        label = _words(line["label"])
        for name, column in (("dice", "dice"), ("hd95_mm", "hd95 mm"), ("volume_ml", "ml")):
            if line[name]:
                row.numbers[f"{label} {column}"] = float(line[name])
        if line["empty"]:
            row.findings.append(f"{label}: {line['empty']} empty")
    return list(known.values())


def _pair(line: dict[str, str]) -> Pair:
    numbers = (float(line[name] or "nan") for name in ("volume_ml", "truth_ml", "dice"))
    return Pair(line["case"], _words(line["label"]), *numbers)


def _add_ratios(rows: Iterable[Row]) -> None:
    """Adds the ratio of left to right volume for labels that exist on both sides."""
    for row in rows:
        for name, value in list(row.numbers.items()):
            other = name.replace("left", "right", 1)
            if name.startswith("left") and name.endswith(" ml") and row.numbers.get(other):
                part = name.removeprefix("left ").removesuffix(" ml")
                row.numbers[f"{part} left / right"] = value / row.numbers[other]


def _mark(rows: Sequence[Row], columns: Sequence[str]) -> list[float]:
    """Adds a finding for every outlier; returns the modified z score of each row's farthest number."""
    distances = [0.0] * len(rows)
    for column in columns:
        values = [row.numbers[column] for row in rows if column in row.numbers]
        scale = spread(values)
        if scale is None:
            continue
        middle, width = scale
        for number, row in enumerate(rows):
            if column in row.numbers:
                z = (row.numbers[column] - middle) / width
                if abs(z) > FAR:
                    row.findings.append(f"{column} is {'high' if z > 0 else 'low'}")
                    distances[number] = max(distances[number], abs(z))
    return distances


def spread(values: Sequence[float]) -> tuple[float, float] | None:
    """Median, and 1.4826 times the median absolute deviation; None for too few values or no spread."""
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < _FEWEST:
        return None
    middle = statistics.median(finite)
    width = 1.4826 * statistics.median(abs(value - middle) for value in finite)
    return (middle, width) if width > 0 else None


def _worst(row: Row) -> float:
    return min((value for name, value in row.numbers.items() if name.endswith("dice")), default=1.0)


def _summary(path: Path) -> tuple[tuple[str, ...], ...]:
    """Label, cases, Dice with its interval, and HD95, over all groups together."""
    if not path.is_file():
        return ()
    rows = [("label", "cases", "Dice, mean", "95 % CI", "Dice, worst", "HD95, mm", "failed")]
    for line in _table(path):
        if line["group"] == "all":
            numbers = [_short(line[f"dice_{name}"]) for name in ("mean", "ci_low", "ci_high", "min")]
            interval = f"{numbers[1]}–{numbers[2]}" if numbers[1] != "–" else "–"
            cells = (_words(line["label"]), line["n"], numbers[0], interval, numbers[3])
            rows.append((*cells, _short(line["hd95_mm_mean"], 1), line["failed"]))
    return tuple(rows)


def _provenance(folder: Path) -> Iterable[tuple[str, str]]:
    start: BatchStart | None = None
    for path in sorted(folder.glob("journal*.jsonl")):
        with path.open(encoding="utf-8", errors="replace") as file:
            for text in file:
                if text.startswith('{"event": "start"') and text.endswith("\n"):
                    start = BatchStart.from_json(json.loads(text))
    if start is None:
        return
    for model in start.models:
        yield f"model {model.name}", f"SHA-256 {model.sha256}, {model.engine}"
    yield "medseg", start.medseg
    yield "options", ", ".join(f"{k}: {v}" for k, v in start.options.items() if v) or "none"
    if start.command:
        yield "command", start.command


def _words(name: str) -> str:
    return name.replace("_", " ").strip()


def _short(text: str, digits: int = 3) -> str:
    return f"{float(text):.{digits}f}" if text else "–"
