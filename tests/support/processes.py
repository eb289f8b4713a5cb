"""Child processes of the tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

PATIENCE = 1000
"""Seconds a child may take, on a machine with ten times the work it can do: a hang ends, no test does."""

_HEAVY = ("lightning", "matplotlib", "monai", "pandas", "torch")
_REPORT = f"""
import atexit, json, sys
atexit.register(lambda: print(json.dumps([name for name in {_HEAVY} if name in sys.modules])))
"""


def environment(**more: str) -> dict[str, str]:
    """Environment variables with which a child process imports the same modules as this one.

    Args:
        more: Variables to add or to replace.
    """
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **more}


def heavy_imports(code: str, *, cwd: Path) -> list[str]:
    """The heavy packages that a fresh interpreter has imported after running ``code``."""
    done = subprocess.run(
        [sys.executable, "-c", _REPORT + code], cwd=cwd, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def command_code(*arguments: str) -> str:
    """Python that runs a medseg command, for :func:`heavy_imports`."""
    return f"sys.argv = {['medseg', *arguments]!r}; from medseg.cli import main; main()"
