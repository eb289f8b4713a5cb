"""Opening and checking one case; files that cannot be read become findings."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

from medseg.datasets.manifest import Case
from medseg.datasets.validation.case_rules import apply_case_rules
from medseg.datasets.validation.case_stats import Facts, measure
from medseg.datasets.validation.findings import Finding, finding
from medseg.errors import InputRefused, MedsegError
from medseg.images.channel_grids import on_first_grid
from medseg.images.mask_placement import placed_on
from medseg.images.volume import Mask, Volume
from medseg.io import read, read_channels, read_mask
from medseg.io.formats import picture_ending
from medseg.io.picture.masks import DEFAULT_CODING
from medseg.io.picture.raster import HARMLESS
from medseg.io.picture.reader import count_channels
from medseg.recipe import Recipe
from medseg.system.notices import collect_notices

Kind: TypeAlias = Literal["image", "label"]
T = TypeVar("T")

_LOG = logging.getLogger(__name__)
# Refusals with a code of their own; all others become `image-unreadable` or `label-unreadable`.
_CODES = {
    "not-found": "missing-file",
    "not-finite": "not-finite",
    "mask-dtype": "label-values",
    "mask-range": "label-values",
}


@dataclass(frozen=True)
class Examined:
    """The result of :func:`examine`.

    Attributes:
        case: The case.
        findings: All findings about this case alone.
        facts: Measurements, without those of the scans if a channel could not be read.
        volumes: The scans, one per channel; empty if a channel could not be read.
        truth: The label map; None if there is none, or it could not be read.
    """

    case: Case
    findings: tuple[Finding, ...]
    facts: Facts
    volumes: tuple[Volume, ...] = ()
    truth: Mask | None = None


def examine(case: Case, recipe: Recipe | None = None) -> Examined:
    """The findings and facts of a case whose scans and label are read here; bad files never raise an error.

    Args:
        case: The case; its label may be missing.
        recipe: Recipe to train. Without one any number of channels and any label
            values are valid, and HU are checked only in DICOM files of modality CT.
    """
    reading = _Reading(case.id)
    with collect_notices() as notices:
        volumes = _volumes(case, recipe, reading)
        truth = _truth(case, recipe, volumes, reading)
    findings = list(reading.findings)
    alike = [notice for notice in notices if notice.reason in HARMLESS]
    others = [notice for notice in notices if notice.reason not in HARMLESS]
    findings += [finding("reader-warning", str(notice), case.id) for notice in others]
    read_as = tuple(dict.fromkeys((notice.reason, notice.text) for notice in alike))
    facts = measure(volumes, truth, recipe).model_copy(update={"read_as": read_as})
    return Examined(case, (*findings, *apply_case_rules(case, facts, recipe)), facts, volumes, truth)


class _Reading:
    """Reads files and collects errors as findings."""

    def __init__(self, case: str) -> None:
        self.case = case
        self.findings: list[Finding] = []

    def attempt(self, kind: Kind, path: Path, how: Callable[[], T], *, mild: str = "") -> T | None:
        """The result of ``how``; None if it fails. The reason code ``mild`` is only a warning."""
        try:
            return how()
        except MedsegError as error:
            code = _CODES.get(error.reason, f"{kind}-unreadable")
            self.findings.append(
                finding(
                    code,
                    f"{error.where or path}: {error.problem}",
                    self.case,
                    severity="warning" if error.reason == mild else None,
                    # The reader's remedy for voxels that are not finite names options of the reader.
                    remedy=error.remedy if code.endswith("-unreadable") else None,
                    refusal=error.reason,
                )
            )
        except Exception as error:  # one case never stops the others
            _LOG.exception("%s: unexpected", self.case)
            cause = f"{type(error).__name__}: {str(error)[:200]}"
            self.findings.append(
                finding(f"{kind}-unreadable", f"{path}: {cause}", self.case, refusal="unexpected")
            )
        return None


def _volumes(case: Case, recipe: Recipe | None, reading: _Reading) -> tuple[Volume, ...]:
    """The scans, one per channel; empty if any of them cannot be read."""
    channels = len(case.images) if recipe is None else len(recipe.channels)
    if recipe is None and channels == 1 and picture_ending(case.images[0]):
        channels = reading.attempt("image", case.images[0], lambda: count_channels(case.images[0])) or 0
        if not channels:
            return ()
    if len(case.images) == 1 and channels > 1:
        only = case.images[0]
        return reading.attempt("image", only, lambda: read_channels([only], channels=channels)) or ()
    if len(case.images) != channels:
        problem = f"the case has {len(case.images)} image(s), but the recipe has {channels} channel(s)"
        reading.findings.append(finding("channel-count", problem, case.id))
    attempts = [reading.attempt("image", path, partial(read, path)) for path in case.images]
    volumes = tuple(volume for volume in attempts if volume is not None)
    if not volumes or len(volumes) < len(attempts):
        return ()
    try:
        return on_first_grid(volumes)
    except InputRefused:
        return volumes  # the rules about grids report it


def _truth(case: Case, recipe: Recipe | None, volumes: tuple[Volume, ...], reading: _Reading) -> Mask | None:
    path = case.label
    if path is None:
        return None
    labels = () if recipe is None else recipe.labels
    # A recipe can distinguish overlapping segments: without one they are no fault of the file.
    mild = "overlapping-segments" if recipe is None else ""
    scan = volumes[0] if volumes else None
    coding = DEFAULT_CODING if recipe is None else recipe.coding
    truth = reading.attempt("label", path, lambda: read_mask(path, labels, scan, coding=coding), mild=mild)
    if truth is None or scan is None:
        return truth
    try:
        return placed_on(truth, scan.grid, names=("label", "scan"))
    except InputRefused:
        return truth  # the rules about grids report it
