"""``summary.html`` of a training's folder: curves, what was learned from what, and how to do it again."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterator
from html import escape
from pathlib import Path

from medseg.io.sidecar import RESEARCH
from medseg.reporting.page import head
from medseg.system.atomic_write import replacing
from medseg.training import provenance

NAME = "summary.html"


def summary(folder: str | Path) -> Path:
    """Writes the page beside the model; it opens from the disk and asks no network.

    Args:
        folder: Of a training, as :func:`medseg.training.trainer.train` leaves it; ``history.png`` is shown
            where it is there.

    Raises:
        UsageError: it is no such folder (``no-record``).
    """
    folder = Path(folder)
    text = "".join(_parts(folder, provenance.read(folder)))
    with replacing(folder / NAME) as fresh:
        fresh.write_text(text, encoding="utf-8", newline="\n")
    return folder / NAME


def _parts(folder: Path, run: provenance.Record) -> Iterator[str]:
    title = f"medseg: {escape(run.recipe.name)}"
    yield head(title)
    yield f'<header><h1>{title}</h1><p class="research">{RESEARCH}</p>'
    yield f"<p>{escape(run.recipe.description)}</p></header><main>"
    counts = Counter(case.split or "no split" for case in run.cases)
    items = [f"<li><b>{count}</b> {escape(split)}</li>" for split, count in sorted(counts.items())]
    if "epochs_done" in run.facts:
        items.append(f"<li><b>{run.facts['epochs_done']}</b> of {run.recipe.train.epochs} epochs</li>")
    yield f'<ul class="counts">{"".join(items)}</ul>'
    curves = folder / "history.png"
    if curves.is_file():
        image = base64.b64encode(curves.read_bytes()).decode()
        yield '<h2>Curves</h2><img alt="Loss and validation Dice by epoch" style="max-width:100%" '
        yield f'src="data:image/png;base64,{image}">'
    yield "<h2>How it was made</h2><dl>"
    for name, told in _facts(run):
        yield f"<dt>{escape(name)}<dd>{escape(told)}"
    yield f"</dl><h2>Recipe</h2><pre>{escape(run.recipe.yaml())}</pre>"
    yield f"<h2>Again</h2><pre>medseg train --rerun {escape(folder.resolve().name)} -o again</pre></main>"
    yield "</body></html>\n"


def _facts(run: provenance.Record) -> Iterator[tuple[str, str]]:
    facts = run.facts
    yield "recipe", f"SHA-256 {facts.get('recipe_digest', '')}"
    for name in ("options", "packages", "machine"):
        yield name, ", ".join(f"{key} {value}" for key, value in facts.get(name, {}).items() if value)
    commit = (facts.get("git") or {}).get("medseg")
    if commit:
        yield "medseg's commit", f"{commit['commit']}{', changed' if commit['changed'] else ''}"
