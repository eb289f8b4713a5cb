"""Checks of a single case by its facts: geometry, labels and intensities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import numpy as np

from medseg.datasets.manifest import Case
from medseg.datasets.validation.case_stats import Channel, Facts, measure
from medseg.datasets.validation.findings import Finding, finding
from medseg.datasets.validation.resampling_loss import prepared_ml
from medseg.images.channel_grids import shared
from medseg.images.grid import Grid
from medseg.images.volume import Volume
from medseg.recipe import Recipe, Window

# Measured on 17 chest and abdomen CT scans of the project's data, and on the same scans with
# 1000 and 1024 added. In the originals 850..1250 HU is dense bone and metal, at most 0.13 % of a
# scan; in the shifted ones it is soft tissue, 13 % or more.
_SHIFTED_DENSE = 0.05
_SHIFTED_NONE = 0.005
# Air is -1000 HU by definition. The 1st percentile was -1055 to -1000 in all 17 scans; a margin of
# 100 HU on either side allows for noise and ringing.
_AIR_HU = (-1100.0, -900.0)
# 14 to 61 % of the voxels of the 17 scans were in -200..300 HU; at most 0.7 % after rescaling twice.
_LEAST_SOFT = 0.02
# 8-bit exports have 0..255, normalised scans span a few units. Fat and muscle alone differ by 150 HU.
_BYTE = 255.0
_LEAST_SPAN_HU = 100.0
# Rounding to prepared voxels changes the volume of structures of a few voxels by up to a half; thin
# structures lose more.
_LEAST_KEPT = 0.5
_MOST_LISTED = 10
_LOOKED_AT = 1_000_000


def apply_case_rules(case: Case, facts: Facts, recipe: Recipe | None = None) -> tuple[Finding, ...]:
    """The findings about a single case.

    Args:
        case: The case.
        facts: Measurements of the case, see :func:`medseg.datasets.validation.case_stats.measure`.
        recipe: Recipe to train; see :func:`medseg.datasets.validation.inspection.examine`.
    """
    return (*_geometry(case, facts), *_labels(case, facts, recipe), *_intensities(case, facts, recipe))


def named(case: Case, recipe: Recipe) -> dict[str, tuple[int, ...]]:
    """The values of the recipe's labels that this case is annotated for, by name."""
    annotated = case.annotated
    return {
        label.name: label.values for label in recipe.labels if annotated is None or label.name in annotated
    }


def _geometry(case: Case, facts: Facts) -> Iterator[Finding]:
    """Findings about grids: what reading and preparing refuse.

    Channels have the tolerance of :func:`medseg.images.channel_grids.shared`, the label that of
    :func:`medseg.images.mask_placement.placed_on`, which has put it on the scan's grid where it could.
    """
    if not facts.channels:
        return
    scan = facts.channels[0].place.grid
    for number, channel in enumerate(facts.channels[1:], start=2):
        own = channel.place.grid
        if not shared(own, scan):
            problem = f"channel {number} is not on the grid of channel 1: {own.mismatch(scan)}"
            yield finding("channel-grid", problem, case.id)
    if facts.truth is not None:
        mismatch = facts.truth.grid.oriented(scan.axcodes).mismatch(scan)
        if mismatch:
            yield finding("label-grid", f"the label is not on the scan's grid: {mismatch}", case.id)


def _labels(case: Case, facts: Facts, recipe: Recipe | None) -> Iterator[Finding]:
    if case.label is None and case.split in ("train", "val"):
        yield finding("no-label", f"the case is in split {case.split} but has no label", case.id)
    if recipe is not None:
        known = {label.name for label in recipe.labels}
        unknown_names = sorted(set(case.annotated or ()) - known)
        if unknown_names:
            problem = f"annotated names {', '.join(unknown_names)}, but the recipe has"
            yield finding("annotated-name", f"{problem} {', '.join(sorted(known))}", case.id)
    if facts.truth is None:
        return
    ignored = None if recipe is None else recipe.ignore_value
    present = [value for value, _ in facts.values if value not in (0, ignored)]
    annotated = {} if recipe is None else named(case, recipe)
    if not present:
        if annotated or recipe is None:
            yield finding("label-empty", "the label map is empty", case.id)
        return
    absent = [name for name, values in annotated.items() if not facts.voxels(values)]
    if absent:
        yield finding("label-absent", f"the label map has no voxel of {_listed(absent)}", case.id)
    if recipe is not None:
        yield from _lost(case, facts, recipe)
        known_values = {value for label in recipe.labels for value in label.values}
        unknown = [value for value in present if value not in known_values]
        if unknown:
            problem = f"{facts.voxels(unknown)} voxel(s) have values that belong to no label"
            listed = _listed([str(v) for v in unknown])
            yield finding("unknown-values", f"{problem} ({listed}); they become background", case.id)


def _lost(case: Case, facts: Facts, recipe: Recipe) -> Iterator[Finding]:
    """Findings about labels that lose half of their volume, or a connected part, in preparation."""
    spacing = recipe.prepare.spacing_mm
    if facts.truth is None:
        return
    size = " x ".join(f"{mm:g}" for mm in spacing)
    for label in recipe.labels:
        kept, voxels = facts.kept_of(label, spacing), facts.voxels(label.values)
        if kept is None or not voxels or label.name not in named(case, recipe):
            continue
        before, after = voxels * facts.truth.grid.voxel_ml, prepared_ml(kept.voxels, spacing)
        parts = f"{kept.lost} of its {kept.parts} connected part(s)"
        if after < _LEAST_KEPT * before:
            rest = f"only {kept.voxels} voxel(s) ({after:.2g} ml) are" if kept.voxels else "nothing is"
            also = f"; {parts} are gone" if kept.lost else ""
            problem = (
                f"{label.name} has {voxels} voxel(s) ({before:.2g} ml), but {rest} left after resampling"
            )
            yield finding("label-lost", f"{problem} to {size} mm{also}", case.id)
        elif kept.lost:
            problem = f"{label.name}: nothing is left of {parts} after resampling to {size} mm"
            yield finding("lesions-lost", problem, case.id)


def _intensities(case: Case, facts: Facts, recipe: Recipe | None) -> Iterator[Finding]:
    empty = [n for n, channel in enumerate(facts.channels, start=1) if channel.constant]
    for number, channel in enumerate(facts.channels, start=1):
        prefix = _channel(number, facts)
        if channel.constant:
            code = "constant-image" if len(empty) == len(facts.channels) else "constant-channel"
            yield finding(code, f"{prefix}all voxels are {channel.minimum:g}", case.id)
            continue
        if any(channel.digest == other.digest for other in facts.channels[: number - 1]):
            yield finding("same-channels", f"{prefix}the same voxels as an earlier channel", case.id)
        wanted = channel.modality if recipe is None else recipe.modality
        # Other modalities, such as PT, may be a channel beside CT or MR.
        if channel.modality in ("CT", "MR") and channel.modality != wanted:
            problem = f"{prefix}the modality is {channel.modality}, but the recipe is for {wanted}"
            yield finding("modality", problem, case.id)
        elif wanted == "CT":
            for code, problem in _hounsfield(channel, recipe):
                yield finding(code, prefix + problem, case.id)


def _hounsfield(channel: Channel, recipe: Recipe | None) -> Iterator[tuple[str, str]]:
    """The reasons why the values of a CT are probably not HU, each as a code and a problem."""
    low, high, hu = channel.minimum, channel.maximum, channel.hu
    if (low >= 0 and high <= _BYTE) or high - low <= _LEAST_SPAN_HU:
        window = recipe.prepare.intensity if recipe is not None else None
        # A skull-stripped brain may be 0..80 HU; a recipe for it has a window in that range.
        if not (isinstance(window, Window) and window.low_hu >= 0 and window.high_hu <= _BYTE):
            yield "hu-windowed", f"values {low:g} to {high:g} are not HU but windowed or normalised"
        return
    if hu.dense >= _SHIFTED_DENSE and hu.none < _SHIFTED_NONE:
        seen = f"{100 * hu.dense:.0f} % of the voxels are in 850..1250 HU and air is at {hu.low:g}"
        yield "hu-shifted", f"{seen}: not a CT, or about 1000 or 1024 too high"
        return
    if not _AIR_HU[0] <= hu.low <= _AIR_HU[1]:
        yield "hu-no-air", f"the 1st percentile is {hu.low:g} HU, but air is -1000 HU"
    if hu.soft < _LEAST_SOFT:
        share = f"only {100 * hu.soft:.2g} % of the voxels are in -200..300 HU"
        yield "hu-no-tissue", f"{share}, the range of soft tissue"


def check_hu_units(volume: Volume, recipe: Recipe) -> tuple[Finding, ...]:
    """The findings that speak against the values of a CT being HU, from a sample of a million voxels.

    There are none for a scan with a single value.
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
