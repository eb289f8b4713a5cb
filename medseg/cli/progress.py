"""How far a training or a batch is, on the terminal."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medseg.training.history import EpochEnd


class Progress:
    """Training progress on stderr: a bar with the time left on a terminal, otherwise one line per epoch."""

    def __init__(self, epochs: int | None = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.table import Column

        self.console = Console(stderr=True)
        # Within 80 columns: the epoch, the time left and Dice come first, and what does not fit is cut off.
        self.bar = Progress(
            TextColumn("{task.description}"),
            MofNCompleteColumn(),
            BarColumn(bar_width=10),
            TextColumn("{task.fields[facts]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.waiting: float | None = None
        self.fold = ""
        self.task = self.bar.add_task("training", total=epochs, facts="preparing")

    def __enter__(self) -> Progress:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def prepared(self, done: int, cases: int, facts: str = "", /) -> None:
        """Shows how many cases are prepared."""
        self.bar.update(self.task, facts=f"prepared {done} of {cases} cases")
        if not self.console.is_terminal and done == cases:
            print(f"prepared {cases} cases", file=sys.stderr, flush=True)

    def show(self, end: EpochEnd) -> None:
        """Shows the result of a finished epoch."""
        self.waiting = end.waiting
        known = end.dice or {}
        minutes, seconds = divmod(round(end.seconds_left), 60)
        facts = f"{minutes}:{seconds:02d} left"
        if known:
            facts += f" · Dice {sum(known.values()) / len(known):.4f}"
        facts += f" · loss {end.loss:.4f}"
        if len(known) > 1:
            facts += " · " + " ".join(f"{name} {value:.4f}" for name, value in known.items())
        self.bar.update(self.task, completed=end.epoch, total=end.epochs, facts=facts)
        if not self.console.is_terminal:
            print(f"{self.fold}epoch {end.epoch}/{end.epochs}: {facts}", file=sys.stderr, flush=True)

    def show_fold(self, fold: int, end: EpochEnd) -> None:
        """Shows the result of a finished epoch of a fold, from 0."""
        self.fold = f"fold {fold}, "
        self.bar.update(self.task, description=f"fold {fold}")
        self.show(end)


class Cases:
    """Batch progress on stderr: a bar with rate and time left on a terminal, otherwise one line per case.

    Args:
        as_json: Print one JSON object per event on standard output instead.
    """

    def __init__(self, *, as_json: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self.as_json = as_json
        self.console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}"),
            console=self.console,
            disable=as_json or not self.console.is_terminal,
        )
        self.task = self.bar.add_task("segmenting", total=None, facts="loading the model")
        self.seen: set[str] = set()
        self.failed: set[str] = set()
        self.todo, self.since = 0, time.monotonic()

    def __enter__(self) -> Cases:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def show(self, event: dict[str, Any]) -> None:
        """Shows one event of the batch: start, case or end."""
        if self.as_json:
            print(json.dumps(event), flush=True)
        elif event["event"] == "start":
            self.todo, self.since = event["todo"], time.monotonic()
            self.bar.update(self.task, total=self.todo, facts="")
            if event["skipped"]:
                failed = event["failed_before"]
                text = f"{event['skipped'] - failed} of {event['cases']} cases are already done"
                self.console.print(text + (f", {failed} failed before" if failed else ""))
        elif event["event"] == "case":
            self._case(event)

    def _case(self, event: dict[str, Any]) -> None:
        self.seen.add(event["case"])
        if event["status"] == "failed":
            self.failed.add(event["case"])
        spent = time.monotonic() - self.since
        left = int(spent / len(self.seen) * max(0, self.todo - len(self.seen)))
        facts = f"{60 * len(self.seen) / max(spent, 1e-9):.1f}/min · {left // 3600}:{left // 60 % 60:02d}:"
        facts += f"{left % 60:02d} left · {len(self.failed)} failed"
        self.bar.update(self.task, completed=len(self.seen), facts=facts)
        line = f"{event['case']}: {event['model']}: {event['status']}"
        if event["status"] == "failed":
            line += f": {event['reason']}: {event['message']}"
        elif event["warnings"]:
            line += f", warning: {' | '.join(event['warnings'])}"
        if not self.console.is_terminal:
            print(f"{len(self.seen)}/{self.todo} {line}", file=sys.stderr, flush=True)
        elif event["status"] == "failed" or event["warnings"]:
            self.console.print(line, markup=False, highlight=False)
