"""QC flags: signs of a faulty mask that its volume alone does not show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from medseg.images.connected_components import components
from medseg.images.run_length import Runs
from medseg.images.volume import Mask, members

QCFlags = dict[str, int | bool]


@dataclass(frozen=True)
class QCFlag:
    """One flag of a label.

    Attributes:
        measure: Computes the flag from the runs of the label's mask; empty labels have a value too.
        describe: Describes an unusual value, as in "in 3 parts"; an empty text if the value is normal.
        implies: Names of flags that need no description of their own if this one is unusual.
    """

    measure: Callable[[Runs], int | bool]
    describe: Callable[[int | bool], str]
    implies: tuple[str, ...] = ()


def _components(runs: Runs) -> int:
    """The number of components (26 neighbours)."""
    return components(runs, corners=True)[1]


def _at_border(runs: Runs) -> bool:
    """Whether the label touches a face of the scan."""
    box = runs.box()
    return box is not None and any(
        part.start == 0 or part.stop == n for part, n in zip(box, runs.shape, strict=True)
    )


REGISTRY: dict[str, QCFlag] = {
    "components": QCFlag(
        _components, lambda count: "" if count == 1 else f"in {count} parts" if count else "is not there"
    ),
    "at_border": QCFlag(_at_border, lambda there: "touches the border of the scan" if there else ""),
}
"""The flags; results, tables and reports have one column or sentence for each."""


def qc_flags(mask: Mask) -> dict[str, QCFlags]:
    """The value of every flag in `REGISTRY`, by label."""
    found: dict[str, QCFlags] = {}
    for label in mask.labels:
        runs = Runs.of(mask.array, partial(members, label=label))
        found[label.name] = {name: flag.measure(runs) for name, flag in REGISTRY.items()}
    return found


def descriptions(flags: Mapping[str, int | bool]) -> list[str]:
    """The unusual flags of one label in words, without those that another unusual flag implies.

    Args:
        flags: Values of flags by name, as in :func:`qc_flags`.
    """
    texts = {name: REGISTRY[name].describe(value) for name, value in flags.items()}
    implied = {other for name, text in texts.items() if text for other in REGISTRY[name].implies}
    return [text for name, text in texts.items() if text and name not in implied]
