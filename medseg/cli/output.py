"""What commands take care of where they write."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medseg.errors import UsageError


def spare_inputs(target: Path, scans: list[Path]) -> None:
    """Refuses to write a mask over the scan it is made from."""
    # Not Path.resolve, which raises where a link leads to itself.
    if os.path.realpath(target) in {os.path.realpath(scan) for scan in scans}:
        raise UsageError(
            "the output is the scan itself", where=target, remedy="choose another name", reason="usage"
        )


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
