"""The ``medseg`` command line, a thin layer that parses arguments, calls the library and prints.

This module imports only the standard library, so that even a signal in the first moments ends quietly.
The commands are in :mod:`medseg.cli.app`.
"""

from __future__ import annotations

from medseg.cli.early_exit import quiet_exit


def main() -> None:
    """Runs the command line. Errors become at most three lines (``--json``: one object) and an exit code."""
    with quiet_exit():
        from medseg.cli.app import run

        run()
