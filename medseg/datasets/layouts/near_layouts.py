"""Folders that nearly have the layout of MSD or nnU-Net: what is missing, and what to give instead."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from medseg.errors import listed

_PARTS = ("imagesTr", "labelsTr")


class NearLayout(NamedTuple):
    """What is missing of a layout, for an error about a folder.

    Attributes:
        problem: What is missing.
        remedy: What to do.
    """

    problem: str
    remedy: str


def nearest_layout(folder: Path) -> NearLayout | None:
    """What a folder lacks of the layout of MSD or nnU-Net; None if it is not close to either.

    Args:
        folder: A folder that has no known layout.
    """
    above = folder.resolve().parent
    if folder.resolve().name.startswith(("images", "labels")) and _is_dataset(above):
        return NearLayout("it is a part of the data set above it", f"give the folder {folder.parent}")
    inside = sorted(each for each in folder.iterdir() if each.is_dir() and _is_dataset(each))
    if len(inside) == 1:
        return NearLayout(f"the data set is in {inside[0].name}", f"give the folder {inside[0]}")
    if inside:
        names = listed((each.name for each in inside), 4)
        return NearLayout(
            f"it holds {len(inside)} data sets: {names}", f"give one of them, such as {inside[0]}"
        )
    there = [part for part in _PARTS if (folder / part).is_dir()]
    if there:
        missing = [f"{part}/" for part in _PARTS if part not in there]
        missing += [] if (folder / "dataset.json").is_file() else ["dataset.json"]
        has, lacks = " and ".join(f"{part}/" for part in there), " and ".join(missing)
        return NearLayout(
            f"of MSD and nnU-Net it has {has}, but {lacks} {'is' if len(missing) == 1 else 'are'} missing",
            "add what is missing; labelsTr/a.nii.gz belongs to imagesTr/a_0000.nii.gz or imagesTr/a.nii.gz",
        )
    return None


def _is_dataset(folder: Path) -> bool:
    return (folder / "dataset.json").is_file() or all((folder / part).is_dir() for part in _PARTS)
