"""The cases found by a layout, and their names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.datasets.manifest import Case
from medseg.errors import UsageError, listed
from medseg.io.formats import is_image, picture_ending
from medseg.system.folder_walk import walk


@dataclass(frozen=True)
class Found:
    """The cases in a folder, and the files without a partner.

    Attributes:
        cases: Cases in order of name.
        alone: Images without a label and labels without an image.
        description: Meaning of the values in created label maps; empty if none were created.
    """

    cases: tuple[Case, ...]
    alone: tuple[Path, ...] = ()
    description: str = ""


def images(folder: Path, *, deep: bool = False) -> list[Path]:
    """The image files in a folder (``deep``: also below it) without hidden ones, in order of name.

    Pictures (PNG, JPEG, TIFF) are images where there are no others.
    """
    every = walk(folder).files if deep else folder.iterdir()
    visible = sorted(p for p in every if not p.name.startswith(".") and p.is_file())
    return [p for p in visible if is_image(p)] or [p for p in visible if picture_ending(p)]


def safe(text: str) -> str:
    """The text as the id of a case, which is usable as a file name."""
    return re.sub(r"[^\w.+=-]+", "_", text).strip("._") or "case"


def distinct(names: Sequence[str]) -> list[str]:
    """The names, with ``_1``, ``_2`` and so on appended to repeated ones."""
    times, used = Counter(name.casefold() for name in names), Counter[str]()
    numbered = []
    for name in names:
        used[name.casefold()] += 1
        numbered.append(name if times[name.casefold()] == 1 else f"{name}_{used[name.casefold()]}")
    return numbered


def ambiguous(problem: str, where: Path, options: Iterable[Path]) -> UsageError:
    """The error for a file that could belong to several cases."""
    return UsageError(
        f"{problem}: {listed(sorted(path.name for path in options))}",
        where=where,
        remedy="move the files that do not belong here away, or write the manifest by hand",
        reason="layout-ambiguous",
    )
