"""What a layout finds, and the names of cases."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medseg.datasets.manifest import Case
from medseg.errors import UsageError
from medseg.io.formats import is_image


@dataclass(frozen=True)
class Found:
    """Cases, and files that belong to none.

    Attributes:
        cases: In order of name.
        alone: Images without a label and labels without an image.
        description: What the values of label maps mean that had to be made; else empty.
    """

    cases: tuple[Case, ...]
    alone: tuple[Path, ...] = ()
    description: str = ""


def images(folder: Path, *, deep: bool = False) -> list[Path]:
    """The image files of a folder (or of all below it), hidden ones left out, in order of name."""
    every = folder.rglob("*") if deep else folder.iterdir()
    return sorted(
        p
        for p in every
        if is_image(p)
        and p.is_file()
        and not any(part.startswith(".") for part in p.relative_to(folder).parts)
    )


def safe(text: str) -> str:
    """The text as the id of a case: usable as a file name."""
    return re.sub(r"[^\w.+=-]+", "_", text).strip("._") or "case"


def distinct(names: Sequence[str]) -> list[str]:
    """The names, with ``_1``, ``_2`` behind those that are there more than once."""
    times, seen = Counter(name.casefold() for name in names), Counter[str]()
    made = []
    for name in names:
        seen[name.casefold()] += 1
        made.append(name if times[name.casefold()] == 1 else f"{name}_{seen[name.casefold()]}")
    return made


def ambiguous(problem: str, where: Path, options: Iterable[Path]) -> UsageError:
    """The error for a file that could belong to two."""
    told = ", ".join(sorted(path.name for path in options))
    return UsageError(
        f"{problem}: {told[:200]}",
        where=where,
        remedy="move away what is not meant, or write the manifest by hand",
        reason="layout-ambiguous",
    )
