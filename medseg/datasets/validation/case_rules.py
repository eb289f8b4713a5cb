"""Judging one case by its facts: geometry, labels, intensities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np

from medseg.datasets.manifest import Case
from medseg.datasets.validation.case_stats import Channel, Facts, measure
from medseg.datasets.validation.findings import Finding, finding
from medseg.images.grid import Grid
from medseg.images.volume import Volume
from medseg.recipe import Recipe, Window

# Measured on the 17 chest and abdomen CT scans of the project's data, and on the same scans with
# 1000 and 1024 added: 850..1250 HU is dense bone and metal, at most 0.13 % of a scan, and in the
# shifted ones the soft tissue, 13 % and more.
_SHIFTED_DENSE = 0.05
_SHIFTED_NONE = 0.005
# Air is -1000 HU by definition. The 1st percentile was -1055 to -1000 in all 17 scans; 100 HU on
# either side leave room for noise and ringing.
_AIR_HU = (-1100.0, -900.0)
# -200..300 HU held 14 to 61 % of the 17 scans, and at most 0.7 % where the rescale was applied twice.
_LEAST_SOFT = 0.02
# 8-bit exports hold 0..255, normalised scans span a few units. Fat and muscle alone are 150 HU apart.
_BYTE = 255.0
_LEAST_SPAN_HU = 100.0
_MOST_LISTED = 10
_LOOKED_AT = 1_000_000


def apply_case_rules(case: Case, facts: Facts, recipe: Recipe | None = None) -> tuple[Finding, ...]:
    """What is to say about a case alone, given what was measured.

    Args:
        case: Which.
        facts: See :func:`medseg.datasets.validation.case_stats.measure`.
        recipe: What it is to be trained with; see :func:`medseg.datasets.validation.inspection.examine`.
    """
    return (*_geometry(case, facts), *_labels(case, facts, recipe), *_intensities(case, facts, recipe))


def named(case: Case, recipe: Recipe) -> dict[str, tuple[int, ...]]:
    """The recipe's labels that were looked for in this case, with their values."""
    annotated = case.annotated
    return {
        label.name: label.values for label in recipe.labels if annotated is None or label.name in annotated
    }


def _geometry(case: Case, facts: Facts) -> Iterator[Finding]:
    """The tolerance is that of reading and preparing: what lies farther apart is refused there."""
    if not facts.channels:
        return
    scan = facts.channels[0].place.grid
    for number, channel in enumerate(facts.channels[1:], start=2):
        mismatch = channel.place.grid.mismatch(scan)
        if mismatch:
            yield finding(
                "channel-grid", f"channel {number} is not on the grid of the first: {mismatch}", case.id
            )
    if facts.truth is not None:
        mismatch = facts.truth.grid.oriented(scan.axcodes).mismatch(scan)
        if mismatch:
            yield finding("label-grid", f"the label is not on the scan's grid: {mismatch}", case.id)


def _labels(case: Case, facts: Facts, recipe: Recipe | None) -> Iterator[Finding]:
    if case.label is None and case.split in ("train", "val"):
        yield finding("no-label", f"the case is in split {case.split} and has no label", case.id)
    if recipe is not None:
        known = {label.name for label in recipe.labels}
        strange = sorted(set(case.annotated or ()) - known)
        if strange:
            told = f"annotated names {', '.join(strange)}: not in the recipe ({', '.join(sorted(known))})"
            yield finding("annotated-name", told, case.id)
    if facts.truth is None:
        return
    ignored = None if recipe is None else recipe.ignore_value
    drawn = [value for value, _ in facts.values if value not in (0, ignored)]
    looked_for = {} if recipe is None else named(case, recipe)
    if not drawn:
        if looked_for or recipe is None:
            yield finding("label-empty", "no voxel of the label map has a label", case.id)
        return
    absent = [name for name, values in looked_for.items() if not facts.voxels(values)]
    if absent:
        yield finding("label-absent", f"no voxel of {_listed(absent)}", case.id)
    if recipe is not None:
        meant = {value for label in recipe.labels for value in label.values}
        unknown = [value for value in drawn if value not in meant]
        if unknown:
            count = facts.voxels(unknown)
            told = f"{count} voxel(s) of {_listed([str(v) for v in unknown])}, values of no label"
            yield finding("unknown-values", f"{told}: taken for background", case.id)


def _intensities(case: Case, facts: Facts, recipe: Recipe | None) -> Iterator[Finding]:
    empty = [n for n, channel in enumerate(facts.channels, start=1) if channel.constant]
    for number, channel in enumerate(facts.channels, start=1):
        told = _channel(number, facts)
        if channel.constant:
            code = "constant-image" if len(empty) == len(facts.channels) else "constant-channel"
            yield finding(code, f"{told}all voxels are {channel.minimum:g}", case.id)
            continue
        if any(channel.digest == other.digest for other in facts.channels[: number - 1]):
            yield finding("same-channels", f"{told}the same voxels as an earlier channel", case.id)
        wanted = channel.modality if recipe is None else recipe.modality
        # Other modalities, such as PT, may be a channel beside CT or MR.
        if channel.modality in ("CT", "MR") and channel.modality != wanted:
            yield finding("modality", f"{told}{channel.modality}, the recipe is for {wanted}", case.id)
        elif wanted == "CT":
            for code, problem in _hounsfield(channel, recipe):
                yield finding(code, told + problem, case.id)


def _hounsfield(channel: Channel, recipe: Recipe | None) -> Iterator[tuple[str, str]]:
    """Whether a CT can be in HU; code and problem of each reason against it."""
    low, high, hu = channel.minimum, channel.maximum, channel.hu
    if (low >= 0 and high <= _BYTE) or high - low <= _LEAST_SPAN_HU:
        window = recipe.prepare.intensity if recipe is not None else None
        # Brain without skull may be 0..80 HU; a recipe for that looks at nothing else.
        if not (isinstance(window, Window) and window.low_hu >= 0 and window.high_hu <= _BYTE):
            yield "hu-windowed", f"values {low:g} to {high:g} are not HU: windowed or normalised"
        return
    if hu.dense >= _SHIFTED_DENSE and hu.none < _SHIFTED_NONE:
        told = f"{100 * hu.dense:.0f} % of it lies in 850..1250 HU, and air at {hu.low:g}"
        yield "hu-shifted", f"{told}: no CT, or about 1000 or 1024 too high"
        return
    if not _AIR_HU[0] <= hu.low <= _AIR_HU[1]:
        yield "hu-no-air", f"the 1st percentile is {hu.low:g} HU, where air is -1000"
    if hu.soft < _LEAST_SOFT:
        yield "hu-no-tissue", f"only {100 * hu.soft:.2g} % of it lies in -200..300 HU, where soft tissue is"


def check_hu_units(volume: Volume, recipe: Recipe) -> tuple[Finding, ...]:
    """What speaks against the voxels of a CT being in HU; about a million of them are looked at.

    A scan of one value says nothing, and nothing is said of it.
    """
    every = max(1, round((prod(volume.grid.shape) / _LOOKED_AT) ** (1 / 3)))
    array = np.asfortranarray(volume.array[::every, ::every, ::every])
    grid = Grid.from_spacing((array.shape[0], array.shape[1], array.shape[2]), volume.grid.spacing_mm)
    (channel,) = measure((Volume(array, grid, volume.source),), None).channels
    if channel.constant:
        return ()
    return tuple(finding(code, problem, "") for code, problem in _hounsfield(channel, recipe))


def _channel(number: int, facts: Facts) -> str:
    return f"channel {number}: " if len(facts.channels) > 1 else ""


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return ", ".join(names[:_MOST_LISTED]) + more
