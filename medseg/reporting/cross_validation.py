"""``report.html`` of a cross-validation: out-of-fold scores, its folds, and their learning curves."""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Iterator
from pathlib import Path

from markupsafe import Markup

from medseg.reporting import charts
from medseg.reporting.content import Content, gather
from medseg.reporting.page import NAME, render_page, save
from medseg.system.error_conversion import damaged_table
from medseg.visualization.overlays import history

FOLDS = "folds.json"
"""A file that only a cross-validation writes: see :mod:`medseg.cross_validation.fold_assignment`."""

OUT_OF_FOLD = "out_of_fold"


def summary(folder: str | Path) -> Path:
    """Writes ``report.html`` into the folder of a cross-validation and returns its path.

    Folds that are not finished are listed as such; scores are shown once all folds are.

    Args:
        folder: The output folder of :func:`medseg.cross_validate`. The curves of each fold are also drawn as
            ``history.png``.

    Raises:
        UsageError: a file or table in it is damaged (``table``).
        ResourceError: the disk fails (``disk``).
    """
    folder = Path(folder)
    scored = folder / OUT_OF_FOLD
    content = gather(scored) if (scored / "evaluation.csv").is_file() else None
    try:
        facts = json.loads((folder / FOLDS).read_text(encoding="utf-8"))
        held = [list(facts["fold_of"].values()).count(fold) for fold in range(int(facts["count"]))]
        folds = list(_folds(folder, held))
        cleaned = _rows(scored / "postprocessing.csv") if content else []
    except (KeyError, ValueError, TypeError, AttributeError, OSError) as error:
        remedy = "write them again with medseg train --folds and --resume"
        raise damaged_table(error, folder, remedy=remedy) from error
    text = render_page(
        "cross_validation.html",
        folder.resolve().name,
        content=content,
        agreement=[] if content is None else _agreement(content),
        worst=[] if content is None else _worst(content),
        folds=folds,
        by_fold=_rows(scored / "folds.csv") if content else [],
        cleaned=cleaned,
        cases=sum(held),
        curves=[(fold, _curves(folder / f"fold_{fold}")) for fold in range(len(held))],
        short=_short,
    )
    return save(folder / NAME, text)


def _folds(folder: Path, held: list[int]) -> Iterator[tuple[int, int, str, str]]:
    """Number, cases held out, epochs done, and best validation Dice of each fold."""
    for fold, cases in enumerate(held):
        run = folder / f"fold_{fold}"
        rows = _rows(run / "history.csv")
        epochs = rows[-1]["epoch"] if rows else "0"
        done = (run / "model.safetensors").is_file()
        best = max((float(row["val_dice"]) for row in rows if row.get("val_dice")), default=None)
        state = f"{epochs} epochs" if done else f"not finished, {epochs} epochs" if rows else "not begun"
        yield fold, cases, state, "–" if best is None else f"{best:.4f}"


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _curves(run: Path) -> str:
    """The learning curves as a PNG in base64; empty if there are none."""
    if not (run / "history.csv").is_file():
        return ""
    return base64.b64encode(history(run / "history.csv", run / "history.png").read_bytes()).decode()


def _agreement(content: Content) -> list[Markup]:
    labels = dict.fromkeys(pair.label for pair in content.pairs)
    by_label = [[pair for pair in content.pairs if pair.label == label] for label in labels]
    return [charts.violins(content.pairs), *map(charts.bland_altman, by_label)]


def _worst(content: Content) -> list[tuple[str, str, str]]:
    """The ten cases with the smallest Dice: case, label and Dice."""
    known = [pair for pair in content.pairs if pair.dice == pair.dice]  # not nan
    ordered = sorted(known, key=lambda pair: (pair.dice, pair.case))
    return [(pair.case, pair.label, f"{pair.dice:.4f}") for pair in ordered[:10]]


def _short(text: str) -> str:
    return f"{float(text):.4f}" if text else "–"
