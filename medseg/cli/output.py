"""Checks that commands make of the files they write, and what they print about inputs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medseg.system.notices import Notice


@contextmanager
def mention_older_output(target: Path) -> Iterator[None]:
    """Warns, if the block that writes ``target`` fails, that the existing file is from an earlier run."""
    older = target.exists()
    try:
        yield
    except BaseException:
        if older:
            print(f"warning: {target} is from an earlier run and was left unchanged", file=sys.stderr)
        raise


def print_notice(notice: Notice) -> None:
    """Prints a notice on stderr, one line."""
    print(f"warning: {notice}", file=sys.stderr)
