"""Signs of a mask that went wrong, which a number of millilitres does not tell."""

from __future__ import annotations

from functools import partial

from medseg.images.connected_components import components
from medseg.images.run_length import Runs
from medseg.images.volume import Mask, members

QCFlags = dict[str, int | bool]


def qc_flags(mask: Mask) -> dict[str, QCFlags]:
    """For each label the number of its components (26 neighbours), and whether it touches the scan's border.

    A label without voxels has no component and touches nothing.
    """
    found: dict[str, QCFlags] = {}
    for label in mask.labels:
        runs = Runs.of(mask.array, partial(members, label=label))
        box, (_, count) = runs.box(), components(runs, corners=True)
        sides = zip(box or (), runs.shape, strict=box is not None)
        at_border = any(part.start == 0 or part.stop == n for part, n in sides)
        found[label.name] = {"components": count, "at_border": at_border}
    return found
