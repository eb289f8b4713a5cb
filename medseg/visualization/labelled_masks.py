"""Masks with names: of a recipe, of the file beside the mask, or made up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from medseg.images.label import Label
from medseg.images.value_counts import value_counts
from medseg.images.volume import Mask, Volume
from medseg.io import read_mask
from medseg.io.sidecar import LABELS, sidecar_path
from medseg.recipe import Recipe


def read_named(path: str | Path, scan: Volume, recipe: str | None = None) -> Mask:
    """The mask at ``path`` with its labels.

    Args:
        path: In any format; a DICOM mask is put on the scan's grid and has names of its own.
        scan: What it is of.
        recipe: Names the labels; without it the sidecar beside the mask does, or the ``labels.json`` that
            a batch leaves beside its masks, and without either each value is a label, such as ``label_3``.

    Raises:
        InputRefused: as :func:`medseg.io.read_mask`.
        UsageError: no such recipe.

    Example:
        >>> mask = medseg.read_named("lungs.nii.gz", medseg.read("chest.nii.gz"))
        >>> [label.name for label in mask.labels]
        ['right_lung', 'left_lung']
    """
    labels = Recipe.read(recipe).painted if recipe else ()
    mask = read_mask(path, labels, scan)
    if mask.labels:
        return mask
    labels = labels_beside(path)
    if labels:
        return Mask(mask.array, mask.grid, labels, mask.source)
    return label_every_value(mask)


def labels_beside(path: str | Path) -> tuple[Label, ...]:
    """The labels that the sidecar of a mask or the ``labels.json`` of its folder names; else empty."""
    for place in (sidecar_path(Path(path)), Path(path).parent / LABELS):
        try:
            told = json.loads(place.read_text(encoding="utf-8"))["labels"]
            return tuple(Label(name=name, values=tuple(values)) for name, values in told.items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return ()


def label_every_value(mask: Mask) -> Mask:
    """The same mask with a label for each of its values, such as ``label_3``."""
    values = (int(value) for value in np.flatnonzero(value_counts(mask.array)) if value)
    labels = tuple(Label(name=f"label_{value}", values=(value,)) for value in values)
    return Mask(mask.array, mask.grid, labels, mask.source)
