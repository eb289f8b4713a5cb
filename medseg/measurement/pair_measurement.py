"""The call that measures a pair of scans, in inspiration and in expiration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from medseg.errors import UsageError
from medseg.images.volume import Volume
from medseg.io.displacement_field import DisplacementField, find_field
from medseg.io.foreign_images import MaskLike, ScanLike, as_volume
from medseg.io.read_options import DEFAULT_OPTIONS, ReadOptions
from medseg.measurement import lung_measures, regions, response_map
from medseg.measurement.lung_labels import Kind
from medseg.measurement.lung_measures import LungScan
from medseg.measurement.lung_registration import register_lungs
from medseg.measurement.measurement_table import BOTH, WHOLE, Measurement, StructureMeasures
from medseg.measurement.registered_expiration import (
    RegisteredExpiration,
    RegistrationQuality,
    of_field,
    of_registered_scan,
)
from medseg.measurement.scan_measurement import cut_lungs, measure, on_scan
from medseg.system.notices import Notice
from medseg.visualization.mask_preview import named_mask

SIMPLEITK = "simpleitk"

LEAST_DICE = 0.95
"""Lungs overlap better after a registration that follows them; the limit is ours."""

MOST_FOLDED_PERCENT = 0.1
"""No tissue can fold; the limit is ours."""

DEFINITIONS = {
    "insp_volume_ml": "volume in inspiration",
    "exp_volume_ml": "volume in expiration",
    "volume_change_ml": "volume in expiration minus that in inspiration",
    "volume_change_percent": "that change as a share of the volume in inspiration",
    "insp_mean_hu": "mean density in inspiration",
    "exp_mean_hu": "mean density in expiration",
    "mean_change_hu": "mean density in expiration minus that in inspiration",
    "insp_laa950_percent": "LAA-950 in inspiration: share of voxels with HU < -950",
    "air_trapping_percent": "air trapping: share of voxels with HU < -856 in expiration",
}
"""Columns of a pair without a registration."""


def measure_pair(
    inspiration: ScanLike,
    inspiration_mask: MaskLike,
    expiration: ScanLike,
    expiration_mask: MaskLike,
    *,
    registration: object = None,
    kind: Kind = "auto",
    rind_mm: float = regions.RIND_MM,
    options: ReadOptions = DEFAULT_OPTIONS,
) -> Measurement:
    """Changes of the lungs from inspiration to expiration, air trapping and, if registered, the PRM.

    Rows are those of :func:`medseg.measure`: right, left and both lungs, whole and in parts. Parts are those
    of each scan; the parametric response map has those of the inspiration.

    Args:
        inspiration: A path, a volume, or an image of another library; CT in HU.
        inspiration_mask: Its lungs, in the same forms.
        expiration: The same patient in expiration, on its own grid.
        expiration_mask: Its lungs.
        registration: ``"simpleitk"`` registers the expiration to the inspiration here. Or the result of
            another tool: a displacement field from the inspiration to the expiration, or the expiration on
            the inspiration's grid. Paths, SimpleITK's images and ``(array, affine)`` are accepted; fields
            have three numbers per voxel (see :func:`medseg.io.displacement_field.find_field`).
        kind: As for :func:`medseg.measure`.
        rind_mm: Depth of the rind below the surface of each lung.
        options: How to read the scans when a file leaves a question open.

    Raises:
        InputRefused: a scan, a mask or the field cannot be read or trusted.
        UsageError: a mask is not on its scan's grid, or the registered scan not on that of the inspiration
            (``grid-mismatch``); there are no lungs (``measure``).

    Example:
        >>> found = medseg.measure_pair("chest.nii.gz", "lungs.nii.gz", "chest.nii.gz", "lungs.nii.gz")
        >>> found["both_lungs"]["volume_change_ml"]
        0.0
    """
    pair = [as_volume(each, options) for each in (inspiration, expiration)]
    masks = [
        on_scan(named_mask(mask, scan), scan)
        for mask, scan in zip((inspiration_mask, expiration_mask), pair, strict=True)
    ]
    found = [measure(scan, mask, kind=kind, rind_mm=rind_mm) for scan, mask in zip(pair, masks, strict=True)]
    _check_lungs(found, pair)
    rows = {(row.structure, row.region): dict(_changes(row, found[1])) for row in _of_lungs(found[0])}
    definitions: dict[str, str] = dict(DEFINITIONS)
    quality: RegistrationQuality | None = None
    if registration is not None:
        lungs = [cut_lungs(scan, mask, kind) for scan, mask in zip(pair, masks, strict=True)]
        registered, how = _registered(registration, pair[0], lungs[0], lungs[1], options)
        for place, shares in _response(lungs[0], registered, rind_mm).items():
            rows[place] |= shares
        quality = registered.quality
        definitions |= response_map.DEFINITIONS
    facts: dict[str, object] = {}
    for name, each in zip(("insp", "exp"), found, strict=True):
        facts |= {f"{name}_{fact}": value for fact, value in each.fitness.items()}
    settings: dict[str, Any] = {"pair": True, "rind_mm": rind_mm}
    if quality is not None:
        facts |= {f"registration_{fact}": value for fact, value in asdict(quality).items()}
        settings["registration"] = how
    if "mask_by" in found[0].settings:
        settings["mask_by"] = found[0].settings["mask_by"]
    for name, scan in zip(("", "exp_"), pair, strict=True):
        settings[f"{name}shape"] = list(scan.grid.shape)
        settings[f"{name}spacing_mm"] = list(scan.grid.spacing_mm)
    return Measurement(
        tuple(StructureMeasures(*place, values) for place, values in rows.items()),
        {
            f"{name}_{lung}": each
            for name, one in zip(("insp", "exp"), found, strict=True)
            for lung, each in one.histograms.items()
        },
        settings,
        definitions | regions.DIVISIONS,
        facts,
        tuple(_notices(found, pair, rows[BOTH, WHOLE], quality)),
    )


def _of_lungs(found: Measurement) -> list[StructureMeasures]:
    return [row for row in found.rows if row.structure in lung_measures.STRUCTURES]


def _check_lungs(found: list[Measurement], scans: list[Volume]) -> None:
    for each, scan in zip(found, scans, strict=True):
        if not each.histograms or not each[BOTH]["volume_ml"]:
            raise UsageError(
                "the mask has no lung",
                where=scan.source.path or "measure_pair",
                remedy="give masks of the lungs; without label names with kind='lung' (--kind lung)",
                reason="measure",
            )


def _changes(row: StructureMeasures, other: Measurement) -> Iterator[tuple[str, float | None]]:
    """The columns of `DEFINITIONS`."""
    first, second = row.values, other.of(row.structure, row.region)
    for name in ("volume_ml", "mean_hu"):
        before, after = first[name], second[name]
        change = None if before is None or after is None else after - before
        yield f"insp_{name}", before
        yield f"exp_{name}", after
        yield f"{name.split('_')[0]}_change_{name.split('_')[1]}", change
        if name == "volume_ml":
            yield "volume_change_percent", 100 * change / before if change is not None and before else None
    yield "insp_laa950_percent", first["laa950_percent"]
    yield "air_trapping_percent", second["laa856_percent"]


def _registered(
    registration: object, scan: Volume, inspiration: LungScan, expiration: LungScan, options: ReadOptions
) -> tuple[RegisteredExpiration, str]:
    """The expiration on the inspiration's box, and in words how it came there."""
    if registration == SIMPLEITK:
        return of_field(inspiration, expiration, register_lungs(inspiration, expiration)), SIMPLEITK
    field: DisplacementField | None = find_field(registration)
    if field is not None:
        return of_field(inspiration, expiration, field), "displacement field"
    moved = as_volume(registration, options)  # type: ignore[arg-type]  # it refuses what is no image
    upright = moved.oriented("RAS")
    if not moved.oriented(scan.grid.axcodes).grid.same_as(scan.grid):
        raise UsageError(
            f"the registered scan is not on the inspiration's grid: {moved.grid.mismatch(scan.grid)}",
            where=moved.source.path or "registration",
            remedy="resample it to the grid of the inspiration, or give the displacement field",
            reason="grid-mismatch",
        )
    first = np.rint(upright.grid.index(inspiration.grid.world((0, 0, 0)))).astype(int)
    box = tuple(slice(low, low + n) for low, n in zip(first, inspiration.grid.shape, strict=True))
    return of_registered_scan(inspiration, upright.array[box]), "registered scan"


def _response(
    lungs: LungScan, registered: RegisteredExpiration, rind_mm: float
) -> dict[tuple[str, str], Mapping[str, float | None]]:
    """The shares of the response map by structure and region."""
    classes = response_map.response_map(lungs.hu, registered.hu, registered.covered)
    found = regions.lung_regions(lungs.sides, classes, lungs.grid, rind_mm)
    return {
        (name, part or WHOLE): response_map.response_shares(found.distribution(sides, part))
        for name, sides in lung_measures.STRUCTURES.items()
        for part in (None, *regions.PARTS)
    }


def _notices(
    found: list[Measurement],
    scans: list[Volume],
    both: Mapping[str, float | None],
    quality: RegistrationQuality | None,
) -> Iterator[Notice]:
    for name, each, scan in zip(("inspiration", "expiration"), found, scans, strict=True):
        for notice in each.notices:
            if (name, notice.reason) != ("expiration", "lung-expiration"):
                yield notice.at(scan.source.path or name)
    before, after = both["insp_volume_ml"] or 0.0, both["exp_volume_ml"] or 0.0
    if after >= before:
        yield Notice(
            "pair-volumes",
            f"the lungs have {before:.0f} ml in inspiration and {after:.0f} ml in expiration",
            remedy="check that the scans are not exchanged",
        )
    if quality is None:
        return
    folded = quality.folded_percent or 0.0
    if (quality.dice is not None and quality.dice < LEAST_DICE) or folded > MOST_FOLDED_PERCENT:
        yield Notice(
            "pair-registration",
            f"the registration fits badly: Dice {quality.dice:.3f} of both lungs, folds in {folded:.2g} % of "
            "them",
            remedy="do not use the PRM, or give a better displacement field",
        )
