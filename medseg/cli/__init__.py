"""The ``medseg`` command line, a thin layer that parses arguments, calls the library and prints.

This module imports next to nothing, so that even a signal in the first moments ends quietly.
The commands are in :mod:`medseg.cli.app`.
"""

from __future__ import annotations

# The part of `signal` that is within Python. The rest imports `enum`: milliseconds, in which Ctrl-C would
# print a traceback.
import _signal  # type: ignore[import-not-found] # typeshed does not describe it


def main() -> None:
    """Runs the command line as this process: a signal never ends it with a traceback."""
    # While modules are loaded, and while Python shuts down, Ctrl-C ends the process as it does in C: Python's
    # own handler would print a traceback.
    if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    run_command()


def run_command() -> None:
    """Runs the command line. Errors become at most three lines (``--json``: one object) and an exit code.

    Handlers of signals are restored at the end, so that it can be called within another program.
    """
    from medseg.cli.early_exit import quiet_exit

    with quiet_exit():
        from medseg.cli.app import run

        run()
