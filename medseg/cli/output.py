"""Messages of the command line: errors, notices, and warnings about older output files."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medseg.errors import MedsegError, printable
from medseg.io.dicomweb.address import written
from medseg.system.notices import Notice


@contextmanager
def mention_older_output(target: Path) -> Iterator[None]:
    """Warns, if the block that writes ``target`` fails, that the existing file is from an earlier run."""
    older = target.exists()
    try:
        yield
    except BaseException as error:
        if older and getattr(error, "reason", "") != "foreign-file":
            print(f"warning: {target} is from an earlier run and was left unchanged", file=sys.stderr)
        raise


def print_notice(notice: Notice) -> None:
    """Prints a notice on stderr, one line."""
    shown = notice if notice.path is None else notice.at(written(notice.path))
    print(f"warning: {shown}", file=sys.stderr)


def print_next(*words: object) -> None:
    """Prints the command that usually follows on stderr, unless there is ``--json``.

    Args:
        words: The command's words after ``medseg``; quoted where the shell needs it.
    """
    if "--json" not in sys.argv:
        print(f"Next: {shlex.join(['medseg', *map(str, words)])}", file=sys.stderr)


def print_error(error: MedsegError, code: int) -> None:
    """Prints an error on stderr, or with ``--json`` as one object on standard output."""
    error.where = error.where and written(error.where)
    if "--json" in sys.argv:
        facts: dict[str, object] = {"reason": error.reason, "exit_code": code, "where": error.where}
        facts |= {"problem": error.problem, "remedy": error.remedy}
        if error.details:
            facts["details"] = list(error.details)
        print(json.dumps({"error": facts}), flush=True)
    else:
        lines = [f"error: {error}", *map(printable, error.details)]
        print("\n".join(lines), file=sys.stderr, flush=True)
