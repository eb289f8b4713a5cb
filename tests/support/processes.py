"""Child processes of the tests."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

PATIENCE = 1000
"""Seconds a child may take, on a machine with ten times the work it can do: a hang ends, no test does."""

_HEAVY = ("lightning", "matplotlib", "monai", "pandas", "torch")


def environment(**more: str) -> dict[str, str]:
    """Environment variables with which a child process imports the same modules as this one.

    Args:
        more: Variables to add or to replace.
    """
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **more}


def heavy_imports(code: str, *, cwd: Path, among: Sequence[str] = _HEAVY) -> list[str]:
    """Those of some packages that a fresh interpreter has imported after running ``code``."""
    report = f"""
import atexit, json, sys
atexit.register(lambda: print(json.dumps([name for name in {tuple(among)} if name in sys.modules])))
"""
    done = subprocess.run(
        [sys.executable, "-c", report + code], cwd=cwd, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def command_code(*arguments: str) -> str:
    """Python that runs a medseg command, for :func:`heavy_imports`."""
    return f"sys.argv = {['medseg', *arguments]!r}; from medseg.cli import main; main()"


MEDSEG = "from medseg.cli import main; main()"
"""The command line, for :func:`forked`."""


def forked(code: str, *arguments: object, output: Path) -> BaseProcess:
    """A started process that runs ``code``, forked from one that has imported torch, MONAI and Lightning.

    It is spared the eight seconds of these imports. The process that it comes from lives as long as the
    tests' and sees the environment variables of the first call. The child leads a process group.

    Args:
        code: Python; it sees ``arguments`` in ``sys.argv``.
        arguments: What follows ``medseg`` on the command line.
        output: File that receives what the process writes to its standard output and error.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["medseg.training.session"])
    process = context.Process(target=_run, args=(code, ["medseg", *map(str, arguments)], str(output)))
    process.start()
    return process


def _run(code: str, argv: list[str], output: str) -> None:
    os.setsid()
    multiprocessing.set_start_method(None, force=True)  # a user's default again, for loaders of training data
    with Path(output).open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = argv
    exec(compile(code, "<forked>", "exec"), {"__name__": "__main__"})
