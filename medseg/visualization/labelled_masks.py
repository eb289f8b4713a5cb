"""Masks with label names from a recipe, from a file beside the mask, or generated."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from medseg.images.label import Label
from medseg.images.value_counts import value_counts
from medseg.images.volume import Mask, Volume
from medseg.io import read_mask
from medseg.io.picture.masks import DEFAULT_CODING
from medseg.io.sidecar import LABELS, sidecar_path
from medseg.recipe import Recipe


def read_named(path: str | Path, scan: Volume, recipe: str | None = None) -> Mask:
    """The mask at ``path`` with its labels.

    Args:
        path: A mask in any format; a DICOM mask is placed on the scan's grid and brings its own names.
        scan: The scan of the mask.
        recipe: A recipe that names the labels. Without one, names come from the mask's sidecar or from the
            ``labels.json`` of its folder; failing that, each value becomes a label such as ``label_3``.

    Raises:
        InputRefused: as :func:`medseg.io.read_mask`.
        UsageError: no such recipe.

    Example:
        >>> mask = medseg.read_named("lungs.nii.gz", medseg.read("chest.nii.gz"))
        >>> [label.name for label in mask.labels]
        ['right_lung', 'left_lung']
    """
    known = Recipe.read(recipe) if recipe else None
    labels = known.painted if known else ()
    mask = read_mask(path, labels, scan, coding=known.coding if known else DEFAULT_CODING)
    if mask.labels:
        return mask
    labels = labels_beside(path)
    if labels:
        return Mask(mask.array, mask.grid, labels, mask.source)
    return label_every_value(mask)


def labels_beside(path: str | Path) -> tuple[Label, ...]:
    """The labels in the sidecar of a mask or in the ``labels.json`` of its folder; empty without either."""
    for place in (sidecar_path(Path(path)), Path(path).parent / LABELS):
        try:
            labels = json.loads(place.read_text(encoding="utf-8"))["labels"]
            return tuple(Label(name=name, values=tuple(values)) for name, values in labels.items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return ()


def is_numbered(label: Label) -> bool:
    """Whether a label has no name but that of :func:`label_every_value`."""
    return label.name == f"label_{label.values[0]}"


def label_every_value(mask: Mask) -> Mask:
    """The same mask with one label per value, named such as ``label_3``."""
    values = (int(value) for value in np.flatnonzero(value_counts(mask.array)) if value)
    labels = tuple(Label(name=f"label_{value}", values=(value,)) for value in values)
    return Mask(mask.array, mask.grid, labels, mask.source)
