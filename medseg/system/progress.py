"""Progress bars, shown on a terminal or in a notebook only."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from rich.console import Console


class Advance(Protocol):
    """A function that advances a bar: number done, total, and a short text to show beside the bar."""

    def __call__(self, done: int, total: int, facts: str = "", /) -> None: ...  # noqa: D102


Shown: TypeAlias = "bool | Advance | None"
"""Whether to show a bar: None for only on a terminal or in a notebook; a function to call instead."""


_steps: ContextVar[Advance | None] = ContextVar("steps", default=None)


# Seconds between two updates of the line in a notebook: each is a message to the browser.
_LINE_EVERY = 0.3


def is_watched(console: Console) -> bool:
    """Whether a bar is visible: on a terminal, or in a notebook with ipywidgets (which rich needs)."""
    return console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)


@contextmanager
def progress_bar(what: str, shown: Shown = None) -> Iterator[Advance]:
    """The function that advances a bar shown on standard error while the block runs.

    Until the first call the bar only indicates activity.

    Args:
        what: Text before the bar, such as ``checking``.
        shown: Whether to show the bar; None for only on a terminal or in a notebook. A function is called
            instead of showing a bar.

    Yields:
        An :class:`Advance`, which does nothing if no bar is shown.
    """
    if shown is False or callable(shown):
        yield shown or _nothing
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if shown is None and not is_watched(console):
        yield _notebook_line(what) if console.is_jupyter else _nothing
        return
    times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *times)
    bar = Progress(
        *columns, TextColumn("{task.fields[facts]}"), console=console, transient=console.is_terminal
    )
    with bar:
        task = bar.add_task(what, total=None, facts="")

        def advance(done: int, total: int, facts: str = "", /) -> None:
            bar.update(task, completed=done, total=total, facts=facts)

        yield advance


@contextmanager
def steps_shown(advance: Advance) -> Iterator[None]:
    """Within the block, :func:`show_step` calls ``advance``; not in other threads.

    For steps deep inside a computation, such as the windows of a network, to which no bar is handed down.
    """
    before = _steps.set(advance)
    try:
        yield
    finally:
        _steps.reset(before)


def show_step(done: int, total: int, facts: str = "") -> None:
    """Advances the bar of the enclosing :func:`steps_shown`; without one nothing happens."""
    advance = _steps.get()
    if advance is not None:
        advance(done, total, facts)


def _notebook_line(what: str) -> Advance:
    """Advances a line of text below the cell: for notebooks without ipywidgets."""
    from IPython.display import DisplayHandle

    line: Any = DisplayHandle()  # type: ignore[no-untyped-call]  # IPython is not typed strictly
    line.display({"text/plain": what}, raw=True)
    shown = float("-inf")

    def advance(done: int, total: int, facts: str = "", /) -> None:
        nonlocal shown
        if done >= total or time.monotonic() - shown > _LINE_EVERY:
            shown = time.monotonic()
            line.update({"text/plain": f"{what} {done}/{total} {facts}".rstrip()}, raw=True)

    return advance


def _nothing(done: int, total: int, facts: str = "", /) -> None:
    """Advances no bar."""
