"""Checks that commands make of the files they write, and what they print about inputs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medseg.system.notices import Notice


@contextmanager
def mention_older_output(target: Path) -> Iterator[None]:
    """A block that makes ``target``: when it fails, a file that was there before is named as such."""
    older = target.exists()
    try:
        yield
    except BaseException:
        if older:
            print(f"warning: {target} is of an earlier run and was left as it is", file=sys.stderr)
        raise


def print_notice(notice: Notice) -> None:
    """Prints a notice on stderr, one line."""
    print(f"warning: {notice}", file=sys.stderr)
