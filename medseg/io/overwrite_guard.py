"""Refusal to replace files that a command reads, or that medseg did not write."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from filecmp import cmp
from pathlib import Path
from typing import TypeAlias

from medseg.errors import UsageError
from medseg.io.sidecar import read_sidecar
from medseg.system.atomic_write import replacing

Inode: TypeAlias = tuple[int, int]

PICTURE_SOFTWARE = "medseg"
"""What the pictures of medseg name as their software."""

_PNG_START = 4096


class OverwriteGuard:
    """The inputs of a command, which none of its outputs may replace.

    Args:
        inputs: Files and folders; links are followed. A folder stands for the files in it, unless they have
            a sidecar of medseg. Names that are not files, such as those of shipped recipes, do no harm.
    """

    def __init__(self, inputs: Iterable[str | Path]) -> None:
        self._paths: dict[str, Path] = {}
        self._inodes: dict[Inode, Path] = {}
        self._folders: dict[str, Path] = {}
        for each in inputs:
            path = Path(each)
            place = os.path.realpath(path)
            self._paths[place] = path
            if path.is_dir():
                self._folders[place + os.path.sep] = path
            inode = _inode(path)
            if inode is not None:
                self._inodes[inode] = path

    def check(self, output: str | Path, *, is_own: Callable[[Path], bool] | None = None) -> None:
        """Refuses an output that would replace an input, or a file that medseg did not write.

        Args:
            output: A file to be written.
            is_own: Whether an existing file was written by medseg; None accepts any that is not an input.

        Raises:
            UsageError: the output is an input (``overwrites-input``), or exists and was not written by medseg
                (``foreign-file``).
        """
        output = Path(output)
        # Not Path.resolve, which raises for a link to itself.
        place = os.path.realpath(output)
        same = self._paths.get(place) or self._inodes.get(_inode(output) or (-1, -1))
        if same is None and output.is_file() and output.suffix != ".json" and not has_own_sidecar(output):
            same = next((path for name, path in self._folders.items() if place.startswith(name)), None)
        if same is not None:
            raise UsageError(
                f"this output would replace the input {same}",
                where=output,
                remedy="choose another place for the output",
                reason="overwrites-input",
            )
        if is_own is not None and os.path.lexists(output) and not is_own(output):
            raise foreign_file(output)


def foreign_file(path: str | Path) -> UsageError:
    """The refusal to replace a file of another origin (``foreign-file``)."""
    return UsageError(
        "this file was not written by medseg, or was changed since, and would be replaced",
        where=path,
        remedy="choose another output, or move the file away",
        reason="foreign-file",
    )


@contextmanager
def replacing_equal(path: Path) -> Iterator[Path]:
    """As :func:`medseg.system.atomic_write.replacing`, for files that have no mark of medseg.

    Only the same content is known to be the work of an earlier run.

    Raises:
        UsageError: a file with other content is there (``foreign-file``), or as for ``replacing``.
        ResourceError: writing fails (``disk``).
    """
    with replacing(path) as fresh:
        yield fresh
        for each in fresh.parent.iterdir():
            place = path.with_name(each.name)
            if os.path.lexists(place) and not (place.is_file() and cmp(place, each, shallow=False)):
                raise foreign_file(place)


def has_own_sidecar(mask: Path) -> bool:
    """Whether the ``.json`` beside a mask says that medseg wrote it."""
    return read_sidecar(mask) is not None


def is_own_picture(path: Path) -> bool:
    """Whether a PNG says that medseg drew it."""
    try:
        with path.open("rb") as file:
            start = file.read(_PNG_START)
    except OSError:
        return False
    return start.startswith(b"\x89PNG") and f"tEXtSoftware\0{PICTURE_SOFTWARE}".encode() in start


def _inode(path: Path) -> Inode | None:
    """What hard links to a file have in common; None without a file."""
    try:
        info = path.stat()
    except (OSError, ValueError):
        return None
    return info.st_dev, info.st_ino
