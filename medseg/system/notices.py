"""Notices: unusual facts about an input, as values instead of warnings.

Code that finds something worth reporting calls :func:`notify`. Callers that want to keep notices open
:func:`collect_notices`; without a collector, a notice becomes a Python warning at the line outside of medseg
that made the call. Collectors live in a `ContextVar`, so threads do not see each other's notices; threads
that work on behalf of a caller run functions wrapped by :func:`in_context`.
"""

from __future__ import annotations

import contextvars
import sys
import warnings
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import ParamSpec, TypeVar

from medseg.errors import InputWarning, printable

_P = ParamSpec("_P")
_R = TypeVar("_R")

RESEARCH = "Research use only. Not a medical device."


@dataclass(frozen=True)
class Notice:
    """Something about an input that was repaired or is unusual but does not stop the work.

    Args:
        reason: A short machine-readable code, such as ``no-orientation``. Codes stay stable between
            releases; texts may be reworded.
        text: What was found, with its value, and what was done about it; one line, without the path.
        path: The file, folder or case concerned.
        remedy: What the user can do about it.

    ``str(notice)`` is one line: the path, the text, the remedy.

    Example:
        >>> print(medseg.Notice("no-lung", "no lung was found", path="chest.nii.gz"))
        chest.nii.gz: no lung was found
    """

    reason: str
    text: str
    path: str | None = None
    remedy: str | None = None

    def __str__(self) -> str:
        parts = (self.path, self.text, self.remedy)
        return ": ".join(" ".join(printable(part).split()) for part in parts if part)

    def at(self, path: str | Path | None) -> Notice:
        """The same notice for another file, folder or case."""
        return replace(self, path=None if path is None else str(path))

    def to_json(self) -> dict[str, str]:
        """The notice as a JSON object; unset fields are left out."""
        fields = {"reason": self.reason, "text": self.text, "path": self.path, "remedy": self.remedy}
        return {name: value for name, value in fields.items() if value is not None}

    @classmethod
    def from_json(cls, value: object) -> Notice:
        """The notice that :meth:`to_json` wrote.

        Raises:
            ValueError: not an object of strings, or without ``reason`` or ``text``.
        """
        if not isinstance(value, dict) or not {"reason", "text"} <= value.keys():
            raise ValueError("a notice is a JSON object with a reason and a text")
        known = {name: value[name] for name in ("reason", "text", "path", "remedy") if name in value}
        if not all(isinstance(each, str) for each in known.values()):
            raise ValueError("reason, text, path and remedy of a notice must be strings")
        return cls(**known)


class _Collector:
    """The notices of a block, each once, and a callback for new ones."""

    def __init__(self, show: Callable[[Notice], None] | None) -> None:
        self.found: list[Notice] = []
        self._show = show

    def add(self, notice: Notice) -> None:
        if notice not in self.found:
            self.found.append(notice)
            if self._show is not None:
                self._show(notice)


_collector: ContextVar[_Collector | None] = ContextVar("medseg_notices", default=None)


@contextmanager
def collect_notices(
    *, show: Callable[[Notice], None] | None = None, pass_on: bool = False
) -> Iterator[list[Notice]]:
    """A list that receives the notices of the block, each once and in order, instead of warnings.

    Collectors nest: only the innermost one receives a notice.

    Args:
        show: Called with each new notice at once.
        pass_on: Also send each notice where it would have gone without this block: to the next collector,
            or to the user as a warning.

    Example:
        >>> with medseg.collect_notices() as notices:
        ...     scan = medseg.read("chest.nii.gz")
        >>> notices
        []
    """
    outer = _collector.get()
    if pass_on:
        show = outer.add if outer is not None else _warn
    collector = _Collector(show)
    token = _collector.set(collector)
    try:
        yield collector.found
    finally:
        _collector.reset(token)


def notify(reason: str, text: str, *, path: str | Path | None = None, remedy: str | None = None) -> None:
    """Sends a notice to the current collector, else issues an `InputWarning`; arguments as for `Notice`."""
    send([Notice(reason, text, remedy=remedy).at(path)])


@contextmanager
def passing_once(reasons: Container[str], said: set[str]) -> Iterator[None]:
    """A block whose notices are sent when it ends; those with certain reasons only the first time.

    Args:
        reasons: Reasons that concern many inputs alike.
        said: Which of them were sent before; updated.
    """
    notices: list[Notice] = []
    try:
        with collect_notices() as notices:
            yield
    finally:
        fresh = [each for each in notices if each.reason not in said]
        said.update(each.reason for each in notices if each.reason in reasons)
        send(fresh)


def send(notices: Iterable[Notice]) -> None:
    """Sends notices to the current collector; without one, each becomes an `InputWarning`.

    The warning is issued at the nearest line of code outside of medseg, every time: under Python's default
    filter, a second scan with the same problem is reported too.

    Raises:
        InputWarning: there is no collector, and the warning filter turns warnings into errors.
    """
    collector = _collector.get()
    for notice in notices:
        if collector is None:
            _warn(notice)
        else:
            collector.add(notice)


def in_context(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """The function bound to the caller's collector, for use in threads that work for the caller.

    The returned function may be called from several threads at once.
    """
    context = contextvars.copy_context()

    def bound(*args: _P.args, **named: _P.kwargs) -> _R:
        return context.copy().run(function, *args, **named)  # a context can be entered once at a time

    return bound


def _warn(notice: Notice) -> None:
    frame = _outside_frame()
    # Without a registry, repeated warnings are shown again; warnings.warn would suppress them.
    warnings.warn_explicit(
        InputWarning(str(notice)),
        InputWarning,
        filename=frame.f_code.co_filename,
        lineno=frame.f_lineno,
        module=frame.f_globals.get("__name__", "<unknown>"),
    )


def _outside_frame() -> FrameType:
    """The nearest frame outside of medseg and contextlib, else the outermost one."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in ("medseg", "contextlib"):
            return frame
        frame = frame.f_back
    return frame
