"""A mask as a folder with one binary file for each label, the layout of TotalSegmentator's masks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medseg.images.label import Label
from medseg.images.volume import Mask
from medseg.io.conversion import check_mask_output
from medseg.io.mask_files import write_mask
from medseg.io.sidecar import meaning_of
from medseg.system.file_names import file_name

_ENDING = ".nii.gz"


def label_paths(folder: str | Path, labels: Sequence[Label]) -> dict[str, Path]:
    """The file of each label, by name; names are made safe, and differ in more than upper and lower case.

    Args:
        folder: The folder of the files.
        labels: The labels.
    """
    paths: dict[str, Path] = {}
    taken: set[str] = set()
    for label in labels:
        name = file_name(label.name)
        while name.casefold() in taken:
            name += f"_{label.value}"
        taken.add(name.casefold())
        paths[label.name] = Path(folder) / f"{name}{_ENDING}"
    return paths


def check_label_files(folder: str | Path, labels: Sequence[Label], inputs: Sequence[str | Path] = ()) -> None:
    """Refuses, before long work, a folder for :func:`write_label_files`; creates it if it does not exist.

    Args:
        folder: The folder.
        labels: The labels to write.
        inputs: Files that must not be replaced, and other outputs.

    Raises:
        UsageError: a file would replace an input (``overwrites-input``) or a file that medseg did not write
            (``foreign-file``), or the folder is a file (``no-folder``).
        ResourceError: the folder cannot be created (``disk``).
    """
    if not os.path.lexists(folder):
        Path(folder).mkdir(parents=True)
    for path in label_paths(folder, labels).values():
        check_mask_output(path, inputs)


def write_label_files(mask: Mask, folder: str | Path, facts: Mapping[str, Any] | None = None) -> list[Path]:
    """Writes each label to ``FOLDER/<label>.nii.gz``, 1 inside and 0 outside, and returns the paths.

    A label that lies inside another one is part of the file of either. A label without voxels is written,
    too: it was looked for, and not found. Each file has a ``.json`` beside it.

    Args:
        mask: The mask.
        folder: The folder; created if it does not exist. Other files in it are left as they are.
        facts: The origin of the mask, such as :attr:`medseg.SegmentedFile.facts`, for the ``.json`` files.

    Raises:
        UsageError: as for :func:`check_label_files`.
        ResourceError: writing fails (``disk``).

    Example:
        >>> mask = medseg.segment("chest.nii.gz", model="threshold")
        >>> [path.name for path in medseg.write_label_files(mask, "segmentations")]
        ['right_lung.nii.gz', 'left_lung.nii.gz']
    """
    check_label_files(folder, mask.labels)
    paths = label_paths(folder, mask.labels)
    for label in mask.labels:
        alone = _alone(mask, label)
        write_mask(alone, paths[label.name], {**_facts_about(label.name, facts or {}), **meaning_of(alone)})
    return list(paths.values())


def label_masks(mask: Mask) -> Iterator[tuple[str, Mask]]:
    """For each label the name of its file, as in :func:`label_paths`, and its binary mask."""
    paths = label_paths("", mask.labels)
    for label in mask.labels:
        yield paths[label.name].name, _alone(mask, label)


def _alone(mask: Mask, label: Label) -> Mask:
    inside = mask.of(label.name).astype(np.uint8)
    return Mask(inside, mask.grid, (label.model_copy(update={"values": (1,)}),), mask.source)


def _facts_about(name: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a mask, those for each label only for one of them."""
    about = {key: value for key, value in facts.items() if key not in ("files", "airless_ml")}
    if name in facts.get("airless_ml", {}):
        about["airless_ml"] = {name: facts["airless_ml"][name]}
    return about
