"""Child processes of the tests."""

from __future__ import annotations

import os
import sys


def environment(**more: str) -> dict[str, str]:
    """Environment variables with which a child process imports the same modules as this one.

    Args:
        more: Variables to add or to replace.
    """
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **more}
