"""Turning what a file format library raises into medseg's own errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medseg.errors import InputRefused, InputWarning, MedsegError, first_line


@contextmanager
def refusing(path: Path, what: str) -> Iterator[None]:
    """A block in which every failure becomes an `InputRefused` that names ``path``.

    Errors of medseg pass through and get ``path`` as their place when they have none. Any
    other exception is a library's complaint about the file: its first line is kept.

    Args:
        path: The file or folder that is being read.
        what: What the file should be, such as ``NIfTI file``.

    Raises:
        InputRefused: reason ``unreadable``, ``permission``, or that of the error inside.
    """
    try:
        yield
    except MedsegError as error:
        if error.where is None:
            error.where = str(path)
        raise
    except (MemoryError, InputWarning):  # a warning is raised where the user asks for it
        raise
    except PermissionError as error:
        raise InputRefused(
            f"no permission to read {Path(error.filename or path).name}",
            where=path,
            remedy="ask its owner for read permission, or copy it as a user who has it",
            reason="permission",
        ) from error
    except Exception as error:
        raise InputRefused(
            f"not a readable {what}: {first_line(error)}",
            where=path,
            remedy="check that the file is complete; export or download it again",
            reason="unreadable",
        ) from error
