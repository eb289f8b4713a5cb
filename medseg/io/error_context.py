"""Conversion of errors from file format libraries to medseg's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medseg.errors import InputRefused, InputWarning, MedsegError, first_line


@contextmanager
def refusing(path: Path, what: str) -> Iterator[None]:
    """A block in which every failure becomes an `InputRefused` that names ``path``.

    medseg's own errors pass through; if they name no place, ``path`` is added. Of any other
    exception the first line is kept.

    Args:
        path: The file or folder being read.
        what: The expected kind of file, such as ``NIfTI file``.

    Raises:
        InputRefused: ``unreadable``, ``permission``, or the reason of the original error.
    """
    try:
        yield
    except MedsegError as error:
        if error.where is None:
            error.where = str(path)
        raise
    except (MemoryError, InputWarning):  # users may turn warnings into errors
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
