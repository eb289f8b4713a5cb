"""Silencing other libraries for a block of code in one thread.

`warnings.catch_warnings` and logger levels are global: changing them in one thread hides the warnings of the
others, and two threads that do so at once may leave them changed for good. Instead, one filter is added to
the process's own. It consults a `ContextVar` and lets everything pass except within a :func:`quiet` block.
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
"""The minimum level of records to keep, by logger; None outside of quiet blocks."""


@contextmanager
def quiet(*loggers: str, below: int = logging.CRITICAL + 1) -> Iterator[None]:
    """A block that suppresses warnings of other libraries, in this thread only.

    medseg's own warnings (`InputWarning`) still pass.

    Args:
        loggers: Names of loggers, such as ``pydicom``, whose records are dropped too, including those of
            their child loggers.
        below: The minimum level of records to keep; by default none are kept.
    """
    if not warnings.filters or warnings.filters[0][2] is not _OfLibraries:
        # First in the list; pytest and users may have inserted theirs before it since.
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
        """Whether the filter applies to a warning of this category now."""
        return _QUIET.get() is not None and InputWarning not in category.__mro__


class _OfLibraries(Warning, metaclass=_InQuietBlock):
    """The category of the filter: any warning of another library within a quiet block."""


def _wanted(record: logging.LogRecord) -> bool:
    for name, level in (_QUIET.get() or {}).items():
        if record.levelno < level and (record.name == name or record.name.startswith(f"{name}.")):
            return False
    return True


_watched: dict[str, int] = {}


def _watch(name: str) -> None:
    """Adds the filter to a logger and its children, because filters are not inherited."""
    known = logging.root.manager.loggerDict
    if _watched.get(name) == len(known):
        return
    for each in (name, *(other for other in list(known) if other.startswith(f"{name}."))):
        logging.getLogger(each).addFilter(_wanted)
    _watched[name] = len(known)


@contextmanager
def without_package(name: str) -> Iterator[None]:
    """A block in which this thread cannot import a package unless it is already loaded.

    Used to leave out an optional part of a library, such as one that reports usage.
    """
    finder = _Absent(name)
    # New lists instead of insert and remove: another thread may be iterating over the old one.
    sys.meta_path = [finder, *sys.meta_path]
    try:
        yield
    finally:
        sys.meta_path = [each for each in sys.meta_path if each is not finder]


def import_nibabel() -> None:
    """Imports nibabel without pydicom, in medseg's own processes only.

    nibabel needs pydicom for DICOM data sets in extensions of NIfTI headers, which medseg does not read, and
    for its package ``nicom``, which imports it itself. Importing pydicom takes longer than all the rest.
    """
    with without_package("pydicom"):
        import nibabel  # noqa: F401


class _Absent:
    def __init__(self, name: str) -> None:
        self._name, self._thread = name, threading.get_ident()

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name.partition(".")[0] == self._name and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"{name} is left out on purpose", name=name)
        return None
