"""``summary.html`` of a training's folder: curves, what was learned from what, and how to do it again."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from medseg.reporting.page import render_page, save
from medseg.training import provenance
from medseg.visualization.overlays import history

NAME = "summary.html"


def summary(folder: str | Path) -> Path:
    """Writes the page beside the model; it opens from the disk and asks no network.

    Args:
        folder: Of a training, as :func:`medseg.training.trainer.train` leaves it. The curves of
            ``history.csv`` are also drawn as ``history.png``.

    Raises:
        UsageError: it is no such folder (``no-record``).
    """
    folder = Path(folder)
    run = provenance.read(folder)
    curves = folder / "history.png"
    if (folder / "history.csv").is_file():
        history(folder / "history.csv", curves)
    text = render_page(
        "training.html",
        run.recipe.name,
        recipe=run.recipe,
        splits=sorted(Counter(case.split or "no split" for case in run.cases).items()),
        epochs_done=run.facts.get("epochs_done"),
        curves=base64.b64encode(curves.read_bytes()).decode() if curves.is_file() else "",
        facts=list(_facts(run)),
        folder=folder.resolve().name,
    )
    return save(folder / NAME, text)


def _facts(run: provenance.Record) -> Iterator[tuple[str, str]]:
    facts = run.facts
    yield "recipe", f"SHA-256 {facts.get('recipe_digest', '')}"
    for name in ("options", "packages", "machine"):
        yield name, ", ".join(f"{key} {value}" for key, value in facts.get(name, {}).items() if value)
    commit = (facts.get("git") or {}).get("medseg")
    if commit:
        yield "medseg's commit", f"{commit['commit']}{', changed' if commit['changed'] else ''}"
