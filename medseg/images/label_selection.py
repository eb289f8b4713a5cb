"""Some of a mask's labels, chosen by name: which values of a label map stay, and what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import numpy.typing as npt

from medseg.errors import UsageError
from medseg.images.label import Label


@dataclass(frozen=True)
class LabelSelection:
    """The chosen labels, and what becomes of each value of a label map.

    Attributes:
        labels: The chosen labels in their own order, with the values that are left of them.
        painted: The new value for each old one, uint16 (65536,); 0 for what belongs to no chosen label.
    """

    labels: tuple[Label, ...]
    painted: npt.NDArray[np.uint16]


def label_names(names: str | Sequence[str]) -> tuple[str, ...]:
    """The names in alphabetical order, each once; text is separated at its commas.

    >>> label_names("spleen, liver,"), label_names(["spleen", "liver"])
    (('liver', 'spleen'), ('liver', 'spleen'))
    """
    if isinstance(names, str):
        names = [part.strip() for part in names.split(",") if part.strip()] or [""]
    return tuple(sorted(set(names)))


def select_labels(
    labels: Sequence[Label], names: str | Sequence[str], where: str | None = None
) -> LabelSelection:
    """The labels with these names, and the values that a label map keeps for them.

    Each chosen label is written with the value that it has among all labels, and has the same voxels. A value
    whose own label is not chosen stays only where several chosen labels meet; otherwise, it becomes the value
    of the chosen label around it: with the lung (1, 2) but not the lesion (2) within it, 2 becomes 1.

    Args:
        labels: All labels of the label map.
        names: Names of those to keep; at least one. Text is separated at its commas.
        where: The option or argument that errors name.

    Raises:
        UsageError: a name is not among the labels, or there is none (``no-such-label``).
    """
    asked = label_names(names)
    known = [label.name for label in labels]
    unknown = [name for name in asked if name not in known]
    if unknown or not asked:
        raise unknown_label(unknown, known, where)
    chosen = [label for label in labels if label.name in asked]
    written = {label.value for label in chosen}
    painted = np.zeros(1 << 16, dtype=np.uint16)
    for value in sorted({value for label in chosen for value in label.values}):
        around = _labels_at(value, chosen)
        alike = [label.value for label in chosen if _labels_at(label.value, chosen) == around]
        painted[value] = value if value in written or not alike else alike[-1]
    left = [tuple(value for value in label.values if painted[value] == value) for label in chosen]
    kept = tuple(
        label.model_copy(update={"values": values}) for label, values in zip(chosen, left, strict=True)
    )
    return LabelSelection(kept, painted)


def unknown_label(names: Sequence[str], known: Sequence[str], where: str | None = None) -> UsageError:
    """The refusal of labels that do not exist, with similar names and all known ones (``no-such-label``)."""
    folded = {name.casefold(): name for name in known}
    similar = [
        folded[each] for name in names for each in get_close_matches(name.casefold(), folded, n=3, cutoff=0.6)
    ]
    asked = ", ".join(repr(name) for name in names)
    problem = f"no label {asked}" if names else "no label was named"
    meant = f"did you mean {' or '.join(dict.fromkeys(similar))}? " if similar else ""
    return UsageError(
        problem, where=where, remedy=f"{meant}The labels are: {', '.join(known)}", reason="no-such-label"
    )


def _labels_at(value: int, labels: Sequence[Label]) -> frozenset[str]:
    """Names of the labels that a value belongs to."""
    return frozenset(label.name for label in labels if value in label.values)
