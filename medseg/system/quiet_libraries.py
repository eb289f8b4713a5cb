"""Keeping other libraries quiet, for one block of one thread.

`warnings.catch_warnings` and a logger's level belong to the whole process: changed in one thread they hide
the warnings of the others, and two threads that change them at once may leave them changed for good. Here one
filter is put beside those of the process. It looks at a `ContextVar` and lets everything pass, except within
a block of :func:`quiet`.
"""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.machinery import ModuleSpec

from medseg.errors import InputWarning

_QUIET: ContextVar[Mapping[str, int] | None] = ContextVar("medseg_quiet", default=None)
"""Of each logger the level from which its records are wanted; None outside of quiet blocks."""


@contextmanager
def quiet(*loggers: str, below: int = logging.CRITICAL + 1) -> Iterator[None]:
    """A block in which warnings of other libraries are not given, in this thread alone.

    Warnings of medseg (`InputWarning`) are given all the same.

    Args:
        loggers: Names of loggers, such as ``pydicom``, whose records are dropped as well, with those of the
            loggers below them.
        below: The level from which records are kept; by default none is.
    """
    if not warnings.filters or warnings.filters[0][2] is not _OfLibraries:
        # In front of the others, once; pytest and the user may have put theirs before it since.
        warnings.simplefilter("ignore", _OfLibraries)
    for name in loggers:
        _watch(name)
    token = _QUIET.set({**(_QUIET.get() or {}), **dict.fromkeys(loggers, below)})
    try:
        yield
    finally:
        _QUIET.reset(token)


class _InQuietBlock(type):
    def __subclasscheck__(cls, category: type) -> bool:
        """Whether a filter for this class holds for a warning that is given now."""
        return _QUIET.get() is not None and InputWarning not in category.__mro__


class _OfLibraries(Warning, metaclass=_InQuietBlock):
    """The category of the one filter: any warning of another library within a quiet block."""


def _wanted(record: logging.LogRecord) -> bool:
    for name, level in (_QUIET.get() or {}).items():
        if record.levelno < level and (record.name == name or record.name.startswith(f"{name}.")):
            return False
    return True


_watched: dict[str, int] = {}


def _watch(name: str) -> None:
    """Puts the filter on a logger and those below it, since a logger's filter does not hold for these."""
    known = logging.root.manager.loggerDict
    if _watched.get(name) == len(known):
        return
    for each in (name, *(other for other in list(known) if other.startswith(f"{name}."))):
        logging.getLogger(each).addFilter(_wanted)
    _watched[name] = len(known)


@contextmanager
def without_package(name: str) -> Iterator[None]:
    """A block in which this thread cannot import a package that is not loaded yet; other threads can.

    For an optional part of a library that is to be left out, such as one that reports its use.
    """
    finder = _Absent(name)
    # New lists, not insert and remove: another thread may be going through the one that is there.
    sys.meta_path = [finder, *sys.meta_path]
    try:
        yield
    finally:
        sys.meta_path = [each for each in sys.meta_path if each is not finder]


class _Absent:
    def __init__(self, name: str) -> None:
        self._name, self._thread = name, threading.get_ident()

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name.partition(".")[0] == self._name and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"{name} is left out on purpose", name=name)
        return None
