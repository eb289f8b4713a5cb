"""The files of a batch in its output folder: whether they are its own, and how they are kept.

Files of another origin are never replaced: an edited mask stays, and a mask that no longer belongs to its row
is renamed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

from medseg.batch_processing import fingerprint
from medseg.batch_processing.messages import MASKS
from medseg.errors import MedsegError
from medseg.inference.case_result import CaseResult
from medseg.io import read_mask

FileState: TypeAlias = Literal["missing", "own", "damaged", "foreign"]


class OutputFiles:
    """The output folder of a batch, and what batches ever wrote into it.

    Args:
        folder: The output folder.
        written: SHA-256 of all content that batches wrote, by path in the folder.
    """

    def __init__(self, folder: Path, written: Mapping[str, set[str]]) -> None:
        self.folder = folder
        self._written = written

    def state(self, name: str) -> FileState:
        """What is at a path in the folder, compared with what batches wrote there.

        Other content is ``foreign`` if it is a readable mask, else ``damaged``.

        Args:
            name: Path of a mask in the folder.
        """
        path = self.folder / name
        try:
            found = fingerprint.digest([path])
        except FileNotFoundError:
            return "missing"
        except OSError:
            return "damaged"
        if found in self._written.get(name, ()):
            return "own"
        try:
            read_mask(path, ())
        except MedsegError:
            return "damaged"
        return "foreign"

    def knows(self, name: str) -> bool:
        """Whether a batch ever wrote a file at this path."""
        return name in self._written

    def is_complete(self, result: CaseResult) -> bool:
        """Whether all files of a result still have the content that was written."""
        try:
            return all(
                fingerprint.digest([self.folder / name]) == known for name, known in result.files.items()
            )
        except OSError:
            return False

    def set_aside(self, name: str, word: str) -> str:
        """Renames a file to ``<name>.<word>.nii.gz``, or with a number if there is one; returns the new path.

        Args:
            name: Path of the file in the folder.
            word: Why, such as ``edited``.
        """
        path = self.folder / name
        stem = path.name.removesuffix(".nii.gz")
        number, fresh = 1, path.with_name(f"{stem}.{word}.nii.gz")
        while fresh.exists():
            number += 1
            fresh = path.with_name(f"{stem}.{word}-{number}.nii.gz")
        path.rename(fresh)
        return fresh.relative_to(self.folder).as_posix()


def mask_name(case: str, model: str, *, several: bool) -> str:
    """Path of a mask in the output folder."""
    return f"{MASKS}/{model}/{case}.nii.gz" if several else f"{MASKS}/{case}.nii.gz"
