"""Commands of medseg, run in the process of the test."""

from __future__ import annotations

import shlex
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO

import pytest

from medseg import cli


def invoke(*arguments: object, code: int = 0) -> tuple[str, str]:
    """Run a command as the shell would and return its standard output and standard error.

    Args:
        arguments: What follows ``medseg`` on the command line.
        code: The exit code that is expected.
    """
    out, err = StringIO(), StringIO()
    argv, sys.argv = sys.argv, ["medseg", *map(str, arguments)]
    try:
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as stopped:
            cli.run_command()
    finally:
        sys.argv = argv
    assert (stopped.value.code or 0) == code, out.getvalue() + err.getvalue()
    return out.getvalue(), err.getvalue()


def output(*arguments: object, code: int = 0) -> str:
    """Run a command as the shell would and return its standard output."""
    return invoke(*arguments, code=code)[0]


def run(monkeypatch: pytest.MonkeyPatch, command: str) -> int:
    """Run a command line that begins with ``medseg`` and return its exit code."""
    monkeypatch.setattr(sys, "argv", shlex.split(command))
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0)
