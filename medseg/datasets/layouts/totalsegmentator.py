"""TotalSegmentator: one folder a case, ``ct.nii.gz`` (or ``mri.nii.gz``) and a file for each organ.

Source: the data set of Wasserthal et al. 2023, doi:10.1148/ryai.230024, version 2
(https://zenodo.org/records/10047292): ``s0000/ct.nii.gz``, ``s0000/segmentations/<organ>.nii.gz``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from medseg.datasets.layouts.case_naming import Found, images, safe
from medseg.datasets.manifest import Case
from medseg.errors import InputRefused, UsageError
from medseg.images.label import Label
from medseg.images.volume import Mask
from medseg.io import read_mask
from medseg.io.formats import stem
from medseg.system.notices import notify

_SCANS = ("ct", "mri")
# What the recipes of this package look for: the five lobes, as right and left lung.
LUNGS = {
    "lung_upper_lobe_right": 1,
    "lung_middle_lobe_right": 1,
    "lung_lower_lobe_right": 1,
    "lung_upper_lobe_left": 2,
    "lung_lower_lobe_left": 2,
}


def matches(folder: Path) -> bool:
    """Whether any case has a folder ``segmentations``."""
    return any(True for _ in folder.glob("*/segmentations"))


def values_of(text: str) -> dict[str, int]:
    """The integers of organs: ``heart,aorta`` is 1 and 2; ``kidney_left=1,kidney_right=1`` says them.

    Raises:
        UsageError: a name twice or empty, or a value that is none of 1 to 255 (``organs``).
    """
    parts = [part.strip().partition("=") for part in text.split(",")]
    try:
        found = {n: int(value) if sign else at for at, (n, sign, value) in enumerate(parts, start=1)}
    except ValueError:
        found = {}
    mixed = len({sign for _, sign, _ in parts}) > 1
    if mixed or "" in found or len(found) < len(parts) or not all(0 < v < 256 for v in found.values()):
        raise UsageError(
            f"{text[:80]!r} does not name organs",
            where="--organs",
            remedy="write organ,organ or organ=1,organ=2 with values from 1 to 255",
            reason="organs",
        )
    return found


def find(folder: Path, made: Path, values: Mapping[str, int] = LUNGS) -> Found:
    """Each case with one label map of its organs, written to ``made``; the lungs by default.

    A label map holds one integer a voxel, so the organs' files are put together; a voxel in
    organs of different values is refused. A case that lacks the file of an organ is left out with a
    warning: an organ that nobody looked for is not an organ that is not there.

    Args:
        folder: Of the data set.
        made: Where the label maps go.
        values: The integer of each organ; several may share one.
    """
    cases, alone = [], []
    for place in sorted(p for p in folder.iterdir() if (p / "segmentations").is_dir()):
        scans = [path for path in images(place) if stem(path) in _SCANS]
        organs = {stem(path): path for path in images(place / "segmentations")}
        there = {name: organs[name] for name in values if name in organs}
        if len(scans) != 1 or not there:
            alone.append(place)
            continue
        lacking = [name for name in values if name not in there]
        if lacking:
            text = f"no file for {', '.join(lacking)[:200]}; the case is left out"
            notify("organ-missing", text, path=place)
            continue
        label = made / f"{safe(place.name)}.nii.gz"
        made.mkdir(parents=True, exist_ok=True)
        together(there, values).save(label)
        cases.append(Case(id=safe(place.name), images=(scans[0],), label=label))
    told = ", ".join(f"{value} {name}" for name, value in values.items())
    return Found(tuple(cases), tuple(alone), f"Labels: {told}.")


def together(files: Mapping[str, Path], values: Mapping[str, int]) -> Mask:
    """One label map of many binary ones.

    Args:
        files: By organ, all on one grid.
        values: The integer of each organ; several may share one.

    Raises:
        InputRefused: a voxel is in organs of different values (``organs-overlap``), or a file lies
            on another grid (``grid-mismatch``).
    """
    labels = tuple(Label(name=f"value_{value}", values=(value,)) for value in sorted(set(values.values())))
    first = read_mask(next(iter(files.values())), ())
    painted = np.zeros(first.grid.shape, np.uint8)
    for name, path in files.items():
        one = read_mask(path, ())
        mismatch = one.grid.mismatch(first.grid)
        if mismatch:
            raise InputRefused(
                f"{name} is not on the grid of the other organs: {mismatch}",
                where=path,
                remedy="download the case again",
                reason="grid-mismatch",
            )
        inside = one.array > 0
        taken = inside & (painted != 0) & (painted != values[name])
        if taken.any():
            raise InputRefused(
                f"{int(taken.sum())} voxels of {name} are in an organ of another value too",
                where=path,
                remedy="correct the masks; a label map holds one integer a voxel",
                reason="organs-overlap",
            )
        painted[inside] = values[name]
    return Mask(painted, first.grid, labels)
