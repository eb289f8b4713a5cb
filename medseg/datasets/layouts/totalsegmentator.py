"""TotalSegmentator: one folder per case, with ``ct.nii.gz`` (or ``mri.nii.gz``) and a file per organ.

Source: the data set of Wasserthal et al. 2023, doi:10.1148/ryai.230024, version 2
(https://zenodo.org/records/10047292): ``s0000/ct.nii.gz``, ``s0000/segmentations/<organ>.nii.gz``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from medseg.datasets.layouts.case_naming import Found, images, safe
from medseg.datasets.manifest import Case
from medseg.errors import InputRefused, UsageError, listed
from medseg.images.label import Label
from medseg.images.volume import Mask
from medseg.io import read_mask, write_to
from medseg.io.formats import NIFTI, stem
from medseg.io.overwrite_guard import replacing_equal
from medseg.system.notices import notify

_SCANS = ("ct", "mri")
# The default for the lung recipes of this package: the five lobes as right and left lung.
LUNGS = {
    "lung_upper_lobe_right": 1,
    "lung_middle_lobe_right": 1,
    "lung_lower_lobe_right": 1,
    "lung_upper_lobe_left": 2,
    "lung_lower_lobe_left": 2,
}


def matches(folder: Path) -> bool:
    """Whether any case folder has a subfolder ``segmentations``."""
    return any(True for _ in folder.glob("*/segmentations"))


def values_of(text: str) -> dict[str, int]:
    """The value of each organ: ``heart,aorta`` gives 1 and 2; ``kidney_left=1,kidney_right=1`` is explicit.

    Raises:
        UsageError: a name is repeated or empty, or a value is not in 1..255 (``organs``).
    """
    parts = [part.strip().partition("=") for part in text.split(",")]
    try:
        found = {n: int(value) if sign else at for at, (n, sign, value) in enumerate(parts, start=1)}
    except ValueError:
        found = {}
    mixed = len({sign for _, sign, _ in parts}) > 1
    if mixed or "" in found or len(found) < len(parts) or not all(0 < v < 256 for v in found.values()):
        raise UsageError(
            f"{text[:80]!r} is not a list of organs",
            where="--organs",
            remedy="write organ,organ or organ=1,organ=2 with values from 1 to 255",
            reason="organs",
        )
    return found


def find(folder: Path, made: Path, values: Mapping[str, int] = LUNGS) -> Found:
    """Each case with one label map of its organs (by default the lungs), written to ``made``.

    The files of the organs are merged into one label map; a voxel in organs of different values is
    an error. A case that lacks the file of an organ is left out with a warning, because the organ
    may be present but not annotated.

    Args:
        folder: Folder of the data set.
        made: Folder for the label maps.
        values: Value of each organ; organs may share a value.
    """
    cases, alone = [], []
    for place in sorted(p for p in folder.iterdir() if (p / "segmentations").is_dir()):
        scans = [path for path in images(place) if stem(path) in _SCANS]
        organs = {stem(path): path for path in images(place / "segmentations")}
        present = {name: organs[name] for name in values if name in organs}
        if len(scans) != 1 or not present:
            alone.append(place)
            continue
        missing = [name for name in values if name not in present]
        if missing:
            text = f"no file for {listed(missing)}; the case is left out"
            notify("organ-missing", text, path=place)
            continue
        label = made / f"{safe(place.name)}.nii.gz"
        made.mkdir(parents=True, exist_ok=True)
        with replacing_equal(label) as fresh:  # label maps may have been corrected by hand
            write_to(together(present, values), fresh, NIFTI.name)
        cases.append(Case(id=safe(place.name), images=(scans[0],), label=label))
    named = ", ".join(f"{value} {name}" for name, value in values.items())
    return Found(tuple(cases), tuple(alone), f"Labels: {named}.")


def together(files: Mapping[str, Path], values: Mapping[str, int]) -> Mask:
    """One label map merged from binary masks.

    Args:
        files: Mask file of each organ, all on the same grid.
        values: Value of each organ; organs may share a value.

    Raises:
        InputRefused: a voxel is in organs of different values (``organs-overlap``), or a file is
            on a different grid (``grid-mismatch``).
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
                f"{int(taken.sum())} voxels of {name} are also in an organ of another value",
                where=path,
                remedy="correct the masks: a label map holds one value per voxel",
                reason="organs-overlap",
            )
        painted[inside] = values[name]
    return Mask(painted, first.grid, labels)
