"""Values of masks that belong to no label, and labels that no truth has: either way scores mislead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from medseg.images.label import Label
from medseg.images.value_counts import value_counts
from medseg.images.volume import Mask
from medseg.system.notices import notify

_MOST_LISTED = 10


@dataclass
class AbsentLabels:
    """Labels that are in predictions but in no truth of an evaluation, as if the truth had other labels.

    Attributes:
        labels: The labels that are scored.
    """

    labels: Sequence[Label]
    _predicted: dict[str, int] = field(default_factory=dict)
    _true: set[str] = field(default_factory=set)

    def look(self, truth: Mask, prediction: Mask, annotated: Sequence[str] | None = None) -> None:
        """Notes the labels of a case; ``annotated`` are those of the truth that can be present, None: all."""
        true, predicted = (value_counts(mask.array) for mask in (truth, prediction))
        for label in self.labels:
            values = list(label.values)
            if true[[value for value in values if value < len(true)]].any():
                self._true.add(label.name)
            known = annotated is None or label.name in annotated
            if known and predicted[[value for value in values if value < len(predicted)]].any():
                self._predicted[label.name] = self._predicted.get(label.name, 0) + 1

    def report(self, cases: int) -> None:
        """A notice for all such labels."""
        found = self._predicted.keys() - self._true
        absent = [label for label in self.labels if label.name in found]
        if not absent:
            return
        names = ", ".join(f"{each.name} (in {self._predicted[each.name]} predictions)" for each in absent)
        values = ",".join(str(value) for label in self.labels for value in label.values)
        notify(
            "label-in-no-truth",
            f"no truth of {cases} cases has a voxel of {names}, so the scores may compare different labels",
            remedy="check the values of the truth; if it holds several labels as one, score them as one: "
            f"evaluate the masks with --masks FOLDER --label NAME={values}",
        )


@dataclass
class UnknownValues:
    """Collects such values over the cases of an evaluation, and reports them at the end.

    Attributes:
        labels: The labels that are scored.
        ignore_value: Value of unknown voxels in a truth, which is expected there.
    """

    labels: Sequence[Label]
    ignore_value: int | None = None
    _found: dict[tuple[str, tuple[int, ...]], list[str]] = field(default_factory=dict)

    def look(self, what: str, case: str, mask: Mask) -> None:
        """Notes values of the mask that belong to no label; ``what`` is ``truth`` or ``prediction``."""
        known = {0} | {value for label in (*self.labels, *mask.labels) for value in label.values}
        if what == "truth" and self.ignore_value is not None:
            known.add(self.ignore_value)
        present = np.flatnonzero(value_counts(mask.array)).tolist()
        unknown = tuple(value for value in present if value not in known)
        if unknown:
            self._found.setdefault((what, unknown), []).append(case)

    def report(self, cases: int) -> None:
        """A notice for each set of values that was found, with the number of cases and the first one."""
        listed = ", ".join(f"{label.name} ({', '.join(map(str, label.values))})" for label in self.labels)
        for (what, values), found in self._found.items():
            more = f" and {len(values) - _MOST_LISTED} more" if len(values) > _MOST_LISTED else ""
            seen = ", ".join(map(str, values[:_MOST_LISTED])) + more
            notify(
                "values-without-label",
                f"the {what} of {len(found)} of {cases} cases has voxels with value {seen}, which belongs to "
                f"no label and counts as background; the labels are {listed}",
                path=found[0],
                remedy="give the labels of these masks, or renumber the masks",
            )
