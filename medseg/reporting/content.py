"""Content of a report, read from the tables that ``medseg batch`` and ``medseg evaluate`` write."""

from __future__ import annotations

import csv
import json
import math
import re
import shlex
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medseg.errors import UsageError
from medseg.images.mask_quality import descriptions
from medseg.inference.batch_events import BatchStart
from medseg.inference.case_result import CaseResult
from medseg.reporting.quantities import quantity_of
from medseg.system.error_conversion import damaged_table
from medseg.visualization import thumbnails

# Iglewicz and Hoaglin 1993, How to detect and handle outliers: modified z scores beyond 3.5 by the median
# and the median absolute deviation.
FAR = 3.5
_FEWEST = 8
# Of the measures of `medseg batch --measure lung`; results.csv has all of them.
_MEASURES = ("mass_g", "mean_hu", "perc15_hu", "laa950_percent", "laa910_percent", "haa_percent", "laa950_d")


EVALUATION = "evaluation"
"""Stands for the model of scores in a folder with masks of several models."""


@dataclass(frozen=True)
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
        slices: Where the slices are, for :func:`medseg.visualization.thumbnails.read_slices`; or None.
        place: Path of the scan; empty if unknown.
        patient: The patient; empty if unknown.
        study: The study; empty if unknown.
        measure_flags: What speaks against comparing the measures of the lungs with those of other scans.
        command: The command that opens the scan and its mask in the viewer; empty if there is no mask.
    """

    case: str
    model: str = ""
    status: str = "done"
    failure: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)
    findings: tuple[str, ...] = ()
    picture: str = ""
    slices: tuple[Path, int] | None = None
    place: str = ""
    command: str = ""
    patient: str = ""
    study: str = ""
    measure_flags: tuple[str, ...] = ()


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
        modalities: Modalities of the scans, as far as the journal names them.
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
    modalities: frozenset[str] = frozenset()


def gather(folder: Path) -> Content:
    """The content of the output folder of a batch, an evaluation, or both.

    Raises:
        UsageError: the folder has neither table (``nothing-to-report``), or one is damaged (``table``).
    """
    batch, evaluation = folder / "results.csv", folder / "evaluation.csv"
    if folder.is_file():
        raise UsageError(
            "this is a file; a report is made of the folder that medseg batch, evaluate or train wrote",
            where=folder,
            remedy=f"medseg report {folder.parent}",
            reason="nothing-to-report",
        )
    if not batch.is_file() and not evaluation.is_file():
        raise UsageError(
            "this folder has neither results.csv nor evaluation.csv"
            if folder.is_dir()
            else "there is no such folder",
            where=folder,
            remedy="give the output folder of medseg batch or medseg evaluate",
            reason="nothing-to-report",
        )
    try:
        rows = _of_batch(_table(batch), folder) if batch.is_file() else []
        pairs: list[Pair] = []
        if evaluation.is_file():
            table = _table(evaluation)
            pairs = [_pair(row) for row in table if row["status"] == "ok"]
            rows = _with_scores(rows, table)
        summary = _summary(folder / "summary.csv")
        start, modalities = _journal(folder)
        made = () if start is None else tuple(_provenance(start))
    except (KeyError, ValueError, TypeError, AttributeError, OSError) as error:
        remedy = "write them again with medseg batch or medseg evaluate"
        raise damaged_table(error, folder, remedy=remedy) from error
    logs = sorted(folder.glob("thumbnails*.jsonl"))
    pictures, places = thumbnails.read(logs), thumbnails.places(logs)
    several = len({row.model for row in rows}) > 1
    rows = [
        replace(
            row,
            model=row.model if several else "",
            numbers={**row.numbers, **_ratios(row.numbers)},
            picture=pictures.get((row.case, row.model), ""),
            slices=places.get((row.case, row.model)),
        )
        for row in rows
    ]
    columns = tuple(dict.fromkeys(name for row in rows for name in row.numbers))
    marked = _marked(rows, columns)
    ordered = tuple(row for row, _ in sorted(marked, key=_order))
    return Content(folder.resolve().name, ordered, columns, tuple(pairs), summary, made, modalities)


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def _of_batch(table: Sequence[dict[str, str]], folder: Path) -> list[Row]:
    rows = []
    for line in table:
        row = _row(CaseResult.from_row(line), folder)
        cells = {f"both_lungs_{name}": line.get(f"both_lungs_{name}") for name in _MEASURES}
        measures = {_words(name): float(cell) for name, cell in cells.items() if cell}
        flags = tuple(dict.fromkeys((line.get("measure_flags") or "").split()))
        rows.append(replace(row, numbers={**row.numbers, **measures}, measure_flags=flags))
    return rows


def _row(result: CaseResult, folder: Path) -> Row:
    """A row of the report, without a picture."""
    findings: list[str] = []
    found: dict[str, float] = {}
    for label in result.labels:
        flags = result.qc_flags.get(label, {})
        findings += [f"{_words(label)} {text}" for text in descriptions(flags)]
        numbers = {"ml": result.volumes_ml.get(label), "airless_ml": result.airless_ml.get(label)}
        numbers["components"] = flags.get("components")
        numbers |= {name: result.intensities.get(label, {}).get(name) for name in ("mean", "sd")}
        found |= {
            _words(f"{label}_{name}"): float(value) for name, value in numbers.items() if value is not None
        }
    found |= {_words(f"{label}_entropy"): bits for label, bits in result.entropy.items()}
    failure = f"{result.reason}: {result.message}" if result.status == "failed" else ""
    command = ""
    if result.mask and result.inputs:
        command = shlex.join(["medseg", "view", result.inputs[0], str(folder.resolve() / result.mask)])
    return Row(
        result.case,
        result.model,
        result.status,
        failure,
        found,
        (*findings, *result.warnings),
        place=" | ".join(result.inputs),
        command=command,
        patient=result.patient,
        study=result.study,
    )


def _with_scores(rows: list[Row], table: Sequence[dict[str, str]]) -> list[Row]:
    """The rows with Dice and HD95 of each label added; cases without a row get one.

    An evaluation does not name its model: where a batch has several rows of a case, scores get their own.
    """
    models = Counter(row.case for row in rows)
    known = {row.case: row for row in rows if models[row.case] == 1}
    for line in table:
        case = line["case"]
        empty = Row(case, EVALUATION if models[case] > 1 else "")
        known[case] = _with_score(known.get(case, empty), line)
    others = [row for row in rows if models[row.case] > 1]
    return [*known.values(), *others]


def _with_score(row: Row, line: Mapping[str, str]) -> Row:
    if line["status"] == "failed":
        return replace(row, status="failed", failure=line["reason"])
    label = _words(line["label"])
    numbers = {
        f"{label} {column}": float(line[name])
        for name, column in (("dice", "dice"), ("hd95_mm", "hd95 mm"), ("volume_ml", "ml"))
        if line[name]
    }
    findings = (f"{label}: {line['empty']} empty",) if line["empty"] else ()
    return replace(row, numbers={**row.numbers, **numbers}, findings=(*row.findings, *findings))


def _pair(line: dict[str, str]) -> Pair:
    numbers = (float(line[name] or "nan") for name in ("volume_ml", "truth_ml", "dice"))
    return Pair(line["case"], _words(line["label"]), *numbers)


def _ratios(numbers: Mapping[str, float]) -> dict[str, float]:
    """The ratio of left to right volume for labels that exist on both sides."""
    found = {}
    for name, value in numbers.items():
        other = name.replace("left", "right", 1)
        if name.startswith("left") and name.endswith(" ml") and numbers.get(other):
            part = name.removeprefix("left ").removesuffix(" ml")
            found[f"{part} left / right"] = value / numbers[other]
    return found


def _marked(rows: Sequence[Row], columns: Sequence[str]) -> list[tuple[Row, float]]:
    """The rows with a finding for every outlier, each with the modified z score of its farthest number."""
    distances = [0.0] * len(rows)
    outliers: list[list[str]] = [[] for _ in rows]
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
                    known = quantity_of(column)
                    name = f"{known.label} {known.name}".strip()
                    outliers[number].append(f"{name} is {'high' if z > 0 else 'low'}")
                    distances[number] = max(distances[number], abs(z))
    marked = [
        replace(row, findings=(*row.findings, *texts)) for row, texts in zip(rows, outliers, strict=True)
    ]
    return list(zip(marked, distances, strict=True))


def _order(marked: tuple[Row, float]) -> tuple[bool, int, float, float]:
    row, distance = marked
    return row.status != "failed", -len(row.findings), -distance, _worst(row)


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


def _journal(folder: Path) -> tuple[BatchStart | None, frozenset[str]]:
    """The last start of a run, and the modalities of all cases."""
    start: BatchStart | None = None
    modalities: set[str] = set()
    for path in sorted(folder.glob("journal*.jsonl")):
        with path.open(encoding="utf-8", errors="replace") as file:
            for text in file:
                if text.startswith('{"event": "start"') and text.endswith("\n"):
                    start = BatchStart.from_json(json.loads(text))
                # Quotes inside a JSON text are escaped, so this finds only the field.
                modalities.update(re.findall(r'"modality": "(\w+)"', text))
    return start, frozenset(modalities)


def _provenance(start: BatchStart) -> Iterable[tuple[str, str]]:
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
