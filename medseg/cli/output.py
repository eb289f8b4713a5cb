"""What commands take care of where they write."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medseg.errors import InputWarning


@contextmanager
def heard() -> Iterator[list[str]]:
    """The warnings about inputs that the block gives, each once; they are shown as ever."""
    told: list[str] = []
    show = warnings.showwarning

    def note(message: Warning | str, category: type[Warning], *rest: Any, **named: Any) -> None:
        if issubclass(category, InputWarning) and str(message) not in told:
            told.append(str(message))
        show(message, category, *rest, **named)

    warnings.showwarning = note
    try:
        yield told
    finally:
        warnings.showwarning = show


@contextmanager
def telling_of_older(target: Path) -> Iterator[None]:
    """Says, when the block fails, that what stands at ``target`` is not its result."""
    older = target.exists()
    try:
        yield
    except BaseException:
        if older:
            print(f"warning: {target} is of an earlier run and was left as it is", file=sys.stderr)
        raise
