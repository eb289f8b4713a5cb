"""TotalSegmentator: one folder a case, ``ct.nii.gz`` (or ``mri.nii.gz``) and a file for each organ.

Source: the data set of Wasserthal et al. 2023, doi:10.1148/ryai.230024, version 2
(https://zenodo.org/records/10047292): ``s0000/ct.nii.gz``, ``s0000/segmentations/<organ>.nii.gz``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medseg.errors import InputRefused
from medseg.io import read_mask
from medseg.label import Label
from medseg.layouts.found import Found, images, safe, stem
from medseg.manifest import Case
from medseg.volume import Mask

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


def find(folder: Path, made: Path) -> Found:
    """Each case with a label map of the right (1) and left (2) lung, written to ``made``.

    A label map holds one integer a voxel, so the organs' files are put together; a voxel in the
    organs of both sides is refused.
    """
    cases, alone = [], []
    for place in sorted(p for p in folder.iterdir() if (p / "segmentations").is_dir()):
        scans = [path for path in images(place) if stem(path) in _SCANS]
        organs = {stem(path): path for path in images(place / "segmentations")}
        there = {name: organs[name] for name in LUNGS if name in organs}
        if len(scans) != 1 or not there:
            alone.append(place)
            continue
        label = made / f"{safe(place.name)}.nii.gz"
        made.mkdir(parents=True, exist_ok=True)
        together(there, LUNGS).save(label)
        cases.append(Case(id=safe(place.name), images=(scans[0],), label=label))
    return Found(tuple(cases), tuple(alone))


def together(files: dict[str, Path], values: dict[str, int]) -> Mask:
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
        if one.grid.distance_mm(first.grid) > 0.01:
            raise InputRefused(
                f"{one.grid} is not the grid of the other organs, {first.grid}",
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
