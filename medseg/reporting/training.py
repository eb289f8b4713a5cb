"""``summary.html`` of a training: learning curves, data, recipe, and how to repeat it."""

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
    """Writes ``summary.html`` beside the model and returns its path; the page needs no network.

    Args:
        folder: The output folder of :func:`medseg.train`. The curves of
            ``history.csv`` are also drawn as ``history.png``.

    Raises:
        UsageError: it is not the folder of a training (``no-record``).
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
