"""Measuring cases for a fingerprint: each is read once, and little is kept of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medseg.datasets.manifest import Case
from medseg.errors import UsageError
from medseg.images.connected_components import components
from medseg.images.label import Label
from medseg.images.mask_placement import placed_on
from medseg.images.run_length import Runs
from medseg.images.volume import Voxels
from medseg.io import read_channels, read_mask
from medseg.io.picture.masks import DEFAULT_CODING, MaskCoding
from medseg.io.picture.raster import HARMLESS
from medseg.planning.fingerprint import MODALITIES, CaseSize, Fingerprint, Intensities, LabelSize, Modality
from medseg.preprocessing.nnunet import nonzero_box
from medseg.system.notices import passing_once
from medseg.system.progress import Shown, progress_bar

# nnU-Net draws 1e8 voxels from all cases together. A tenth is enough for percentiles of 0.5 (the standard
# error of such a percentile is below 0.01 percentage points) and takes 40 MB instead of 400 MB a channel.
_DRAWN = 10_000_000
_DRAWN_FROM_CASE = 1_000_000
_SEED = 1234  # nnU-Net's
# Air is -1000 HU by definition, and no other modality has values as low; z-scores and MR never reach it.
_AIR_HU = -600

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """The connected parts of one value in one case, without single voxels.

    Attributes:
        ml: Volume of all voxels of the value.
        parts_ml: Volume of each part.
        sides_mm: float64 (n, 3), sides of the box around each part along R-L, A-P and S-I.
    """

    ml: float
    parts_ml: npt.NDArray[np.float64]
    sides_mm: npt.NDArray[np.float64]


@dataclass(frozen=True)
class CaseMeasurement:
    """What is kept of a case.

    Attributes:
        size: Its grid.
        drawn: Foreground intensities of each channel, drawn with replacement; none without foreground.
        parts: The parts of each value of the label map.
        modality: ``CT``, ``MR`` or ``picture`` where the file says so, else empty.
        lowest: Smallest intensity of the first channel.
    """

    size: CaseSize
    drawn: tuple[Floats, ...]
    parts: dict[int, Part]
    modality: str
    lowest: float


def measure_case(
    case: Case,
    *,
    channels: int,
    draws: int,
    labels: Sequence[Label] = (),
    coding: MaskCoding = DEFAULT_CODING,
) -> CaseMeasurement:
    """The measurements of a case with a label.

    Args:
        case: The case.
        channels: Number of channels.
        draws: Number of foreground voxels to draw, with replacement.
        labels: The labels that ``coding`` gives colours.
        coding: The value of voxels that are unknown, which are no foreground, and colours of mask pictures.

    Raises:
        UsageError: the case has no label (``no-label``).
        InputRefused: a file cannot be read, or scan and label lie on different grids.
    """
    if case.label is None:
        raise UsageError("a case to plan from needs a label", where=case.id, reason="no-label")
    volumes = [volume.oriented("RAS") for volume in read_channels(case.images, channels=channels)]
    found_mask = read_mask(case.label, labels, volumes[0], coding=coding)
    truth = placed_on(found_mask, volumes[0].grid, names=("label", "scan"))
    ignore_value = coding.ignore_value
    box = nonzero_box([volume.array for volume in volumes])
    values_of = truth.oriented("RAS").array
    x, y, z = (each.stop - each.start for each in box)
    spacing = volumes[0].grid.spacing_mm
    foreground = (values_of[box] > 0) & (values_of[box] != (ignore_value or 0))
    rng = np.random.RandomState(_SEED)
    drawn = []
    for volume in volumes:
        inside = np.asarray(volume.array[box][foreground], np.float32)
        drawn.append(rng.choice(inside, draws, replace=True) if len(inside) else inside)
    values = [
        number for number, found in enumerate(ndimage.find_objects(values_of), start=1) if found is not None
    ]
    return CaseMeasurement(
        CaseSize(spacing_mm=spacing, stored=volumes[0].grid.shape, shape=(x, y, z)),
        tuple(drawn),
        {value: _part(values_of, value, spacing) for value in values if value != ignore_value},
        volumes[0].source.modality or "",
        float(volumes[0].array.min()),
    )


def _part(labels: Voxels, value: int, spacing_mm: Sequence[float]) -> Part:
    runs = Runs.of(labels, lambda slab: slab == value)
    number, count = components(runs, corners=True)
    voxels = np.bincount(number, weights=runs.lengths, minlength=count).astype(np.float64)
    along = [labels.shape[axis] for axis in runs.order]
    first, last = (np.unravel_index(position, along) for position in (runs.start, runs.stop - 1))
    sides = np.zeros((count, 3))
    for axis, low, high in zip(runs.order, first, last, strict=True):
        lowest, highest = np.full(count, labels.shape[axis]), np.zeros(count, np.intp)
        np.minimum.at(lowest, number, low)
        np.maximum.at(highest, number, high)
        sides[:, axis] = (highest - lowest + 1) * spacing_mm[axis]
    voxel_ml = prod(spacing_mm) / 1000
    large = voxels > 1  # a single voxel counts as a speck of the annotation
    return Part(float(voxels.sum() * voxel_ml), voxels[large] * voxel_ml, sides[large])


def make_fingerprint(
    cases: Sequence[Case],
    *,
    name: str,
    channels: Sequence[str],
    modality: Modality | None = None,
    coding: MaskCoding = DEFAULT_CODING,
    names: dict[int, str] | None = None,
    progress: Shown = None,
) -> Fingerprint:
    """The fingerprint of cases with labels.

    Args:
        cases: The cases; those without a label are left out.
        name: Name of the data set.
        channels: Names of the channels.
        modality: ``CT``, ``MR`` or ``picture``; None: what the files say, or CT if the first channel has air
            in HU.
        coding: The value of unknown voxels in label maps, and colours of ``names`` in mask pictures.
        names: Names of the values of label maps.
        progress: Whether to show a progress bar; None shows it on a terminal or in a notebook only.

    Raises:
        UsageError: no case has a label (``no-label``), or no label map has any value (``plan-empty``).
        InputRefused: a file cannot be read, or scan and label lie on different grids.
    """
    labelled = [case for case in cases if case.label is not None]
    if not labelled:
        raise UsageError(
            f"none of {len(cases)} cases has a label",
            where=name,
            remedy="add label maps: a plan follows from the structures to segment",
            reason="no-label",
        )
    draws = min(_DRAWN // len(labelled), _DRAWN_FROM_CASE)
    labels = [Label(name=name, values=(value,)) for value, name in (names or {}).items()]
    measured, said = [], set[str]()
    with progress_bar("reading", progress) as advance:
        for number, case in enumerate(labelled, start=1):
            with passing_once(HARMLESS, said):
                made = measure_case(
                    case,
                    channels=len(channels),
                    draws=draws,
                    labels=labels if coding.colours else (),
                    coding=coding,
                )
            measured.append(made)
            advance(number, len(labelled))
    if not any(each.parts for each in measured):
        raise UsageError(
            f"the label maps of all {len(labelled)} cases are empty",
            where=name,
            remedy="check that these are the label maps",
            reason="plan-empty",
        )
    return Fingerprint(
        name=name,
        modality=modality or _modality(measured),
        cases=tuple(each.size for each in measured),
        channels=tuple(_intensities(each, n, measured) for n, each in enumerate(channels)),
        labels=_labels(measured, names or {}),
    )


def _modality(measured: Sequence[CaseMeasurement]) -> Modality:
    said = {known for known in MODALITIES if any(each.modality == known for each in measured)}
    if len(said) == 1:
        return said.pop()
    low = sum(each.lowest < _AIR_HU for each in measured)
    return "CT" if 2 * low > len(measured) else "MR"


def _intensities(name: str, channel: int, measured: Sequence[CaseMeasurement]) -> Intensities:
    every = np.concatenate([each.drawn[channel] for each in measured])
    low, median, high = np.percentile(every, (0.5, 50, 99.5)).tolist()
    return Intensities(
        name=name,
        mean=float(np.mean(every, dtype=np.float64)),
        sd=float(np.std(every, dtype=np.float64)),
        median=median,
        minimum=float(every.min()),
        maximum=float(every.max()),
        low=low,
        high=high,
    )


def _labels(measured: Sequence[CaseMeasurement], names: dict[int, str]) -> tuple[LabelSize, ...]:
    found = []
    for value in sorted({value for each in measured for value in each.parts}):
        own = [each.parts[value] for each in measured if value in each.parts]
        parts_ml = np.concatenate([each.parts_ml for each in own])
        sides = np.concatenate([each.sides_mm for each in own])
        x, y, z = np.percentile(sides, 10, axis=0).tolist() if len(sides) else (0.0, 0.0, 0.0)
        found.append(
            LabelSize(
                value=value,
                name=names.get(value, ""),
                cases=len(own),
                median_ml=float(np.median([each.ml for each in own])),
                smallest_ml=float(parts_ml.min()) if len(parts_ml) else 0.0,
                parts=len(parts_ml),
                thin_mm=(x, y, z),
            )
        )
    return tuple(found)
