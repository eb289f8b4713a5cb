"""The contents of the viewer as files in memory: a scan, its masks, and the difference of two masks."""

from __future__ import annotations

import json
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import InputRefused, UsageError
from medseg.images.label import Label
from medseg.images.mask_placement import placed_on
from medseg.images.palette import BLUE, PURPLE, VERMILLION, label_colour
from medseg.images.volume import Mask, Volume
from medseg.images.volume_text import volume_text
from medseg.io import write
from medseg.visualization.thumbnails import thumbnail, window

PRESETS = {
    "lung": (-1400.0, 200.0),
    "mediastinum": (-160.0, 240.0),
    "bone": (-500.0, 1300.0),
    "brain": (0.0, 80.0),
    "liver": (-45.0, 105.0),
}
"""Black and white point in HU: levels -600, 40, 400, 40 and 30, widths 1600, 400, 1800, 80 and 150, as in
Murphy and Baba, Windowing (CT), Radiopaedia (doi.org/10.53347/rID-52108), for brain and liver.
"""

_FIRST_PIXELS = 448
"""Height of the pictures that the page shows first."""

_DIFFERENCE = (
    Label(name="only_in_the_first", values=(1,)),
    Label(name="only_in_the_second", values=(2,)),
    Label(name="another_label", values=(3,)),
)
_APART = (VERMILLION, BLUE, PURPLE)
"""Colours of the difference, which the first labels do not have."""


@dataclass(frozen=True)
class Scene:
    """The files that the viewer loads.

    Attributes:
        files: ``scene.json``, NIfTI files, and pictures that the page shows until these are loaded, by name.
    """

    files: dict[str, bytes]


def scene(scan: Volume, masks: Sequence[tuple[str, Mask]]) -> Scene:
    """The scene of a scan with up to two masks, each with its name.

    Raises:
        UsageError: more than two masks (``viewer-masks``), or a mask is not on the scan's grid
            (``grid-mismatch``).
    """
    if len(masks) > 2:
        raise UsageError(
            f"{len(masks)} masks given, but at most two can be compared",
            where="medseg view",
            remedy="give one or two masks",
            reason="viewer-masks",
        )
    layers = [(name, _on_scan(name, mask, scan)) for name, mask in masks]
    if len(layers) == 2:
        layers.append(("difference", _difference(layers[0][1], layers[1][1])))
    files = {"scan.nii": _nifti(scan)}
    described: list[dict[str, Any]] = []
    for number, (name, mask) in enumerate(layers):
        files[f"mask{number}.nii"] = _as_labels(_nifti(_numbered(mask)))
        described.append({"name": name, "file": f"mask{number}.nii", "labels": _labels(mask)})
    pictures = {
        f"first{number}.webp": picture for number, picture in enumerate(_first_pictures(scan, layers[:2]))
    }
    presets = PRESETS if window(scan) == PRESETS["lung"] else {"scan": window(scan)}
    is_hounsfield = presets is PRESETS
    facts: dict[str, Any] = {"presets": presets, "unit": "HU" if is_hounsfield else "", "masks": described}
    facts["grid"] = str(scan.grid)
    facts["first"] = list(pictures)
    return Scene(files | pictures | {"scene.json": json.dumps(facts).encode()})


def _first_pictures(scan: Volume, layers: Sequence[tuple[str, Mask]]) -> list[bytes]:
    """Three planes with contours, for each mask; those of the scan alone if there is none."""
    masks: list[Mask | None] = [mask for _, mask in layers]
    return [thumbnail(scan, mask, pixels=_FIRST_PIXELS) for mask in masks or [None]]


def _on_scan(name: str, mask: Mask, scan: Volume) -> Mask:
    try:
        return placed_on(mask, scan.grid)
    except InputRefused as error:
        raise UsageError(
            error.problem, where=name, remedy="give the mask of this scan", reason="grid-mismatch"
        ) from error


def _labels(mask: Mask) -> list[dict[str, Any]]:
    volumes_ml = mask.volumes_ml()
    return [
        {
            "name": label.name,
            "value": number + 1,
            "colour": (_APART[number] if mask.labels == _DIFFERENCE else label_colour(label)),
            "volume": volume_text(volumes_ml[label.name]),
        }
        for number, label in enumerate(mask.labels)
    ]


def _numbered(mask: Mask) -> Mask:
    """The labels as 1, 2, 3, and so on; later labels cover earlier ones, and other values are dropped."""
    if [label.values for label in mask.labels] == [(n,) for n in range(1, int(mask.array.max()) + 1)]:
        return Mask(mask.array, mask.grid, ())
    named = max((value for label in mask.labels for value in label.values), default=0)
    numbers = np.zeros(
        max(named, int(mask.array.max())) + 1, np.uint16 if len(mask.labels) > 255 else np.uint8
    )
    for number, label in enumerate(mask.labels, start=1):
        numbers[list(label.values)] = number
    painted = numbers[mask.array]
    return Mask(painted, mask.grid, ())


def _difference(first: Mask, second: Mask) -> Mask:
    """Voxels labelled in only the first mask (1), only the second (2), or in both, differently (3)."""
    a, b = _by_name(first), _by_name(second)
    differ = np.select([(a > 0) & (b == 0), (a == 0) & (b > 0), a != b], [1, 2, 3], 0).astype(np.uint8)
    return Mask(differ, first.grid, _DIFFERENCE)


def _by_name(mask: Mask) -> npt.NDArray[np.int64]:
    """The labels as integers that are equal in two masks if names are; other values are dropped."""
    painted = np.zeros(mask.array.shape, np.int64)
    for label in mask.labels:
        painted[mask.of(label.name)] = 1 + zlib.crc32(label.name.encode())
    return painted


def _as_labels(nifti: bytes) -> bytes:
    """The file with the intent code of label maps (NIFTI_INTENT_LABEL), by which NiiVue draws contours."""
    return nifti[:68] + (1002).to_bytes(2, "little") + nifti[70:]


def _nifti(image: Volume | Mask) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write(image, Path(folder) / "image.nii", flush=False).read_bytes()
