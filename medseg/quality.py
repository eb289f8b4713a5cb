"""Signs of a mask that went wrong, which a number of millilitres does not tell."""

from __future__ import annotations

import numpy as np

from medseg.volume import Mask

Signs = dict[str, int | bool]


def signs(mask: Mask) -> dict[str, Signs]:
    """For each label the number of its components (26 neighbours), and whether it touches the scan's border.

    A label without voxels has no component and touches nothing.
    """
    from scipy import ndimage

    found: dict[str, Signs] = {}
    for label in mask.labels:
        inside = mask.of(label.name)
        boxes = ndimage.find_objects(inside.view(np.uint8))
        if not boxes:
            found[label.name] = {"components": 0, "at_border": False}
            continue
        box = boxes[0]
        _, count = ndimage.label(inside[box], np.ones((3, 3, 3)))
        at_border = any(s.start == 0 or s.stop == n for s, n in zip(box, inside.shape, strict=True))
        found[label.name] = {"components": int(count), "at_border": at_border}
    return found
