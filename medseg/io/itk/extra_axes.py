"""Axes of NRRD and MetaImage files beyond the three of space: channels, and axes of one entry."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from medseg.errors import InputRefused
from medseg.io.itk.text_header import TextHeader, numbers

# Kinds of axes that ITK's NRRD reader turns into the numbers of a voxel, whatever their position.
_CHANNELS = ("list", "vector")
_MATRIX = ("TransformMatrix", "Rotation", "Orientation")
_VECTORS = ("Offset", "Position", "Origin", "ElementSpacing", "ElementSize")


def without_list_axis(header: TextHeader, most: int = 1) -> TextHeader:
    """An NRRD header with an axis of the kind ``list`` or ``vector`` counted as channels.

    Args:
        header: The header.
        most: The longest axis that is converted. A last axis is converted only if its length is 1.
    """
    kinds = header.fields.get("kinds", "").lower().split()
    directions = header.fields.get("space directions", "").split()
    if len(header.sizes) != 4 or len(kinds) != 4:
        return header
    for axis, longest in ((0, most), (3, 1)):
        if kinds[axis] in _CHANNELS and header.sizes[axis] <= longest:
            fields = dict(header.fields)
            if directions and directions[0 if axis == 0 else -1].lower() == "none":
                fields["space directions"] = " ".join(directions[1:] if axis == 0 else directions[:-1])
            sizes = header.sizes[:axis] + header.sizes[axis + 1 :]
            return replace(header, fields=fields, sizes=sizes, channels=header.sizes[axis])
    return header


def without_single_axes(header: TextHeader) -> TextHeader:
    """A MetaImage header without the axes after the third, if their length is 1: a 4D file of one volume.

    NRRD headers are returned unchanged: with four axes of space they do not tell left from right.

    Raises:
        InputRefused: such an axis is oblique to space (``geometry``).
    """
    count = len(header.sizes)
    if count < 4 or set(header.sizes[3:]) != {1} or "DimSize" not in header.fields:
        return header
    fields = dict(header.fields)
    for name in _MATRIX:
        values = numbers(fields.get(name, ""))
        if len(values) == count * count:
            matrix = np.reshape(values, (count, count))
            if matrix[3:, :3].any() or matrix[:3, 3:].any():
                raise InputRefused(
                    f"the axes after the third are oblique to space: {name} = {fields[name][:80]}",
                    reason="geometry",
                    remedy="export one 3D volume",
                )
            fields[name] = " ".join(f"{v!r}" for v in matrix[:3, :3].ravel().tolist())
    for name in _VECTORS:
        values = numbers(fields.get(name, ""))
        if len(values) == count:
            fields[name] = " ".join(f"{v!r}" for v in values[:3])
    return replace(header, fields=fields, sizes=header.sizes[:3], single_axes=count - 3)
