"""A progress bar on a terminal or in a notebook, and silence elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from rich.console import Console


class Advance(Protocol):
    """Moves a bar: called with how many are done, of how many, and a few words that are shown beside it."""

    def __call__(self, done: int, total: int, facts: str = "", /) -> None: ...  # noqa: D102


Shown: TypeAlias = "bool | Advance | None"
"""Whether to show a bar: None on a terminal or in a notebook only; a function is called in its place."""


def is_watched(console: Console) -> bool:
    """Whether a bar can be seen: on a terminal, or in a notebook that has ipywidgets (rich needs them)."""
    return console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)


@contextmanager
def progress_bar(what: str, shown: Shown = None) -> Iterator[Advance]:
    """A bar on standard error while the block runs, and the function that moves it.

    Until it is first moved, it only shows that there is work going on.

    Args:
        what: Stands before the bar, such as ``checking``.
        shown: Whether to show it; None on a terminal or in a notebook only. A function is called in the place
            of the bar.

    Yields:
        An :class:`Advance`; without a bar it does nothing.
    """
    if shown is False or callable(shown):
        yield shown or _nothing
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if shown is None and not is_watched(console):
        yield _nothing
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bar = Progress(
        *columns, TextColumn("{task.fields[facts]}"), console=console, transient=console.is_terminal
    )
    with bar:
        task = bar.add_task(what, total=None, facts="")

        def advance(done: int, total: int, facts: str = "", /) -> None:
            bar.update(task, completed=done, total=total, facts=facts)

        yield advance


def _nothing(done: int, total: int, facts: str = "", /) -> None:
    """Moves nothing."""
