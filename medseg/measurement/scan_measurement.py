"""The call that measures a scan and its mask."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from medseg.errors import InputRefused, UsageError
from medseg.images.grid import Grid
from medseg.images.mask_placement import placed_on
from medseg.images.volume import Mask, Volume
from medseg.inference.lobe_checks import lobe_of
from medseg.io.foreign_images import MaskLike, ScanLike, as_volume
from medseg.io.label_maps import notify_of_labels
from medseg.io.mask_origin import mask_origin
from medseg.io.read_options import DEFAULT_OPTIONS, ReadOptions
from medseg.measurement import lung_measures, measures, regions, structures
from medseg.measurement.lesions import DEFINITIONS as LESIONS
from medseg.measurement.lesions import lesion_rows
from medseg.measurement.lobes import DEFINITIONS as LOBES
from medseg.measurement.lobes import lobe_map, lobe_rows, with_severity
from medseg.measurement.lung_labels import Kind, divided, lung_labels, lung_side, painted
from medseg.measurement.lung_measures import LungScan
from medseg.measurement.measurement_table import Histogram, Measurement, StructureMeasures
from medseg.measurement.scan_fitness import MOST_CORRECTED_HU, ScanFitness, fitness_of, notices_of
from medseg.system.notices import Notice, notify
from medseg.visualization.labelled_masks import is_numbered
from medseg.visualization.mask_preview import named_mask


def measure(
    scan: ScanLike,
    mask: MaskLike,
    *,
    kind: Kind = "auto",
    rind_mm: float = regions.RIND_MM,
    correct_air: bool = False,
    lesions: MaskLike | None = None,
    recipe: str | Path | None = None,
    options: ReadOptions = DEFAULT_OPTIONS,
) -> Measurement:
    """Measures of a scan within a mask: lungs by side and part, other labels by volume and shape.

    Lungs get the measures that are common in the literature: volume, mass, histogram, percentiles, low and
    high attenuation areas, aeration, and the exponent of low attenuation clusters; for the right lung, the
    left one and both together, whole, in thirds by volume and by height, ventral and dorsal halves, core and
    rind; and for each lobe if the mask has lobes, with its CT severity score if there are lesions as well.
    Every other label has volume, intensities, surface, sphericity, diameters and its number of parts. All
    definitions are in the result, and in docs/measures.md.

    Args:
        scan: A path, a volume, or an image of another library; CT in HU for lungs.
        mask: The mask, in the same forms, on the scan's grid.
        kind: ``auto`` takes labels with names such as ``right_lung`` or ``lungs`` for lung; ``lung`` takes
            all labels together for both lungs if none has such a name; ``structures`` takes none for lung.
        rind_mm: Depth of the rind below the surface of each lung.
        correct_air: Multiply every HU by the factor that gives the air in the trachea -1000 HU and leaves
            water at 0, the two points that define the scale. The factor is in the result.
        lesions: A mask of lesions on the scan's grid, any value but 0: adds a row for all of them (number,
            volume, NELSON classes, share of the lungs) and one for each (volume, side and third, distance to
            the pleura).
        recipe: A recipe that names the labels of a mask read from a file.
        options: How to read the scan when the file leaves a question open.

    Raises:
        InputRefused: the scan or the mask cannot be read or trusted, or the scan has NaN (``not-finite``).
        UsageError: the mask is not on the scan's grid (``grid-mismatch``), or the depth of the rind is not
            positive, or there is no trachea to correct by (``measure``).

    Example:
        >>> found = medseg.measure("chest.nii.gz", "lungs.nii.gz")
        >>> found["right_lung"]["median_hu"], found.of("left_lung", "dorsal_half")["median_hu"]
        (-844.0, -833.0)
    """
    _check_rind(rind_mm)
    volume = as_volume(scan, options)
    named = on_scan(named_mask(mask, volume, recipe), volume)
    lungs = lung_labels(named, kind)
    _notify_of_arguments(volume, named, kind)
    names = {label.name for label in named.labels} - {label.name for label in lungs}
    rows: list[StructureMeasures] = []
    histograms: dict[str, Histogram] = {}
    definitions: dict[str, str] = {}
    settings: dict[str, Any] = {}
    facts: dict[str, object] = {}
    notices: tuple[Notice, ...] = ()
    if lungs:
        marked = None if lesions is None else on_scan(named_mask(lesions, volume), volume, "mask of lesions")
        cut = cut_lungs(volume, named, kind, marked)
        fitness = fitness_of(volume, cut)
        if correct_air:
            cut, fitness = _corrected(cut, fitness, volume)
        found, histograms = lung_measures.measure_lungs(cut, rind_mm)
        rows += with_severity((*found, *lobe_rows(cut)))
        if cut.lobes.size and marked is not None:
            definitions |= LOBES
        if marked is not None:
            rows += lesion_rows(cut.lesions, cut)
            definitions |= LESIONS
        notices, facts = notices_of(fitness), fitness.to_json()
        definitions |= {name: each.definition for name, each in measures.REGISTRY.items()}
        definitions |= lung_measures.CLUSTERS | regions.DIVISIONS
        settings = {"rind_mm": rind_mm, "clusters_below_hu": lung_measures.CLUSTERS_HU}
    if names:
        rows += structures.measure_structures(volume.oriented("RAS"), named.oriented("RAS"), names)
        definitions = structures.DEFINITIONS | definitions
    maker = _maker(mask, named)
    settings |= {"mask_by": maker} if maker else {}
    settings |= {"shape": list(volume.grid.shape), "spacing_mm": list(volume.grid.spacing_mm)}
    return Measurement(tuple(rows), histograms, settings, definitions, facts, notices)


def _maker(mask: MaskLike, named: Mask) -> dict[str, str]:
    """The model that made a mask, if that is recorded."""
    # A DICOM mask that is placed on a scan has the source of the scan.
    path = Path(mask) if isinstance(mask, str | Path) else named.source.path
    return {} if path is None else mask_origin(path)


def _notify_of_arguments(scan: Volume, mask: Mask, kind: Kind) -> None:
    """Sends a notice if the scan looks like a mask, or if no label has a name to recognise lungs by."""
    notify_of_labels(scan)
    if kind == "auto" and mask.labels and all(is_numbered(label) for label in mask.labels):
        notify(
            "unnamed-labels",
            f"labels without names ({len(mask.labels)}): each was measured as a structure, not as lung",
            path=mask.source.path,
            remedy="--kind lung measures all of them together as both lungs; --recipe gives them names",
        )


def _corrected(lungs: LungScan, fitness: ScanFitness, scan: Volume) -> tuple[LungScan, ScanFitness]:
    """The lungs with the correction by tracheal air, and the facts that say so."""
    air = fitness.trachea_hu
    if air is None or not MOST_CORRECTED_HU[0] <= air <= MOST_CORRECTED_HU[1]:
        shown = "no trachea was found" if air is None else f"the air in the trachea has {air:.0f} HU"
        raise UsageError(
            f"{shown}: there is nothing to correct by",
            where=scan.source.path,
            remedy="measure without the correction by air",
            reason="measure",
        )
    factor = -1000 / air
    mean = None if fitness.mean_hu is None else fitness.mean_hu * factor
    return replace(lungs, hu_factor=factor), replace(fitness, hu_factor=factor, mean_hu=mean)


def _check_rind(rind_mm: float) -> None:
    if not 0 < rind_mm < 1000:
        raise UsageError(
            f"a rind of {rind_mm} mm",
            where="rind_mm",
            remedy="give a depth above 0 and below 1000 mm, such as 10",
            reason="measure",
        )


def on_scan(mask: Mask, scan: Volume, what: str = "mask") -> Mask:
    """The mask put on the scan's grid, see :func:`medseg.images.mask_placement.placed_on`.

    Raises:
        UsageError: their voxels do not coincide (``grid-mismatch``).
    """
    try:
        return placed_on(mask, scan.grid)
    except InputRefused as error:
        raise UsageError(
            error.problem,
            where=mask.source.path or what,
            remedy=f"give the {what} of {scan.source.path or 'this scan'}",
            reason="grid-mismatch",
        ) from error


def cut_lungs(scan: Volume, mask: Mask, kind: Kind = "auto", lesions: Mask | None = None) -> LungScan:
    """The box around both lungs and the lesions, oriented ``RAS``; one voxel if there is no lung.

    Args:
        scan: The CT.
        mask: On the same grid.
        kind: See :func:`measure`.
        lesions: On the same grid.
    """
    labels = lung_labels(mask, kind)
    sided = all(lung_side(label) for label in labels)
    found = mask.array if sided else divided(mask, labels, scan)
    marked = None if lesions is None else np.asarray(lesions.array > 0)
    box = regions.bounding_box(found if marked is None else (found > 0) | marked) or (
        slice(0, 1),
        slice(0, 1),
        slice(0, 1),
    )
    affine = mask.grid.affine.copy()
    affine[:3, 3] = mask.grid.world([part.start for part in box])
    sides = painted(found[box], labels) if sided else found[box]
    grid = Grid(sides.shape, affine)
    upright = Mask(sides, grid, ()).oriented("RAS")
    hu = Volume(scan.array[box], grid).oriented("RAS")
    cut = LungScan(np.asfortranarray(upright.array), np.asfortranarray(hu.array), upright.grid)
    if any(lobe_of(label) for label in labels):
        lobes = Mask(lobe_map(mask.array[box], labels), grid, ()).oriented("RAS").array
        cut = replace(cut, lobes=np.asfortranarray(lobes))
    if marked is None:
        return cut
    return replace(cut, lesions=Mask(marked[box], grid, ()).oriented("RAS").array > 0)
