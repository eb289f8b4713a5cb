"""How far a training is, on the terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medseg.history import EpochEnd


class Progress:
    """A bar with the time left on a terminal, a line an epoch elsewhere; always on stderr."""

    def __init__(self, epochs: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self.console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[facts]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.waiting: float | None = None
        self.task = self.bar.add_task("training", total=epochs, facts="preparing")

    def __enter__(self) -> Progress:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def prepared(self, done: int, cases: int) -> None:
        """Shows that one more case is prepared."""
        self.bar.update(self.task, facts=f"prepared {done} of {cases} cases")
        if not self.console.is_terminal and done == cases:
            print(f"prepared {cases} cases", file=sys.stderr, flush=True)

    def show(self, end: EpochEnd) -> None:
        """Shows an epoch that ended."""
        self.waiting = end.waiting
        dice = "".join(f" {name} {value:.4f}" for name, value in (end.dice or {}).items())
        minutes, seconds = divmod(round(end.seconds_left), 60)
        facts = f"loss {end.loss:.4f}{dice and f' · validation Dice{dice}'} · {minutes}:{seconds:02d} left"
        self.bar.update(self.task, completed=end.epoch, facts=facts)
        if not self.console.is_terminal:
            print(f"epoch {end.epoch}/{end.epochs}: {facts}", file=sys.stderr, flush=True)
