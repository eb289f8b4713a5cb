"""Radiomic features by `mirp`, to which scan and mask are handed over.

Nothing of radiomics is computed here. mirp (Zwanenburg et al. 2024) follows the Image Biomarker
Standardisation Initiative; its version and settings are recorded in the result.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from medseg.errors import ResourceError, UsageError
from medseg.images.volume import Mask, Volume, members
from medseg.io import nifti
from medseg.io.foreign_images import MaskLike, ScanLike, as_volume
from medseg.io.path_checks import existing
from medseg.io.read_options import DEFAULT_OPTIONS, ReadOptions
from medseg.measurement.measurement_table import Measurement, StructureMeasures
from medseg.measurement.scan_measurement import on_scan
from medseg.system import quiet_libraries
from medseg.visualization.mask_preview import named_mask

REGION = "radiomics"
"""The region of rows of features."""

PREFIX = "mirp_"
"""Columns are this and mirp's name of the feature."""

DEFAULT_SETTINGS: Mapping[str, Any] = {
    "base_discretisation_method": "fixed_bin_size",
    "base_discretisation_bin_width": 25.0,
    "resegmentation_intensity_range": [-1000.0, 400.0],
}
"""What mirp is told without a file of settings: bins of 25 HU within -1000 to 400 HU, on the scan's grid."""

_ABOUT = ("sample_name", "image_")  # columns that describe the image


def measure_radiomics(
    scan: ScanLike,
    mask: MaskLike,
    *,
    settings: str | Path | None = None,
    recipe: str | Path | None = None,
    options: ReadOptions = DEFAULT_OPTIONS,
) -> Measurement:
    """The radiomic features of each label of a mask, computed by mirp (``pip install 'medseg[radiomics]'``).

    Args:
        scan: A path, a volume, or an image of another library; CT in HU.
        mask: The mask, in the same forms, on the scan's grid.
        settings: mirp's XML file of settings; by default `DEFAULT_SETTINGS`.
        recipe: A recipe that names the labels of a mask read from a file.
        options: How to read the scan when the file leaves a question open.

    Returns:
        A row with the region ``radiomics`` for each label with voxels; columns are ``mirp_`` and mirp's name.
        ``settings["radiomics"]`` holds mirp's version, its settings, and the digest of their file.

    Raises:
        InputRefused: the scan, the mask or the settings cannot be read.
        ResourceError: mirp is not installed (``missing-extra``).
        UsageError: the mask is not on the scan's grid (``grid-mismatch``), or mirp refuses scan or settings
            (``measure``).

    Example:
        >>> found = medseg.measure_radiomics("chest.nii.gz", "lungs.nii.gz")  # doctest: +SKIP
        >>> found.of("right_lung", "radiomics")["mirp_morph_volume"]  # doctest: +SKIP
        2031245.0
        >>> medseg.measure("chest.nii.gz", "lungs.nii.gz").settings.get("radiomics") is None
        True
    """
    mirp = _mirp()
    chosen: dict[str, Any] = dict(DEFAULT_SETTINGS)
    recorded: dict[str, Any] = {"mirp": version("mirp"), "settings": dict(DEFAULT_SETTINGS)}
    if settings is not None:
        file = existing(settings)
        chosen = {"settings": str(file)}
        recorded["settings"] = {"file": file.name, "sha256": sha256(file.read_bytes()).hexdigest()}
    volume = as_volume(scan, options)
    named = on_scan(named_mask(mask, volume, recipe), volume)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        image, part = Path(folder) / "scan.nii", Path(folder) / "mask.nii"
        nifti.write(volume, image)
        for label in named.labels:
            inside = members(named.array, label)
            if inside.any():
                nifti.write(Mask(inside.astype(np.uint8), volume.grid, ()), part)
                rows.append(
                    StructureMeasures(label.name, REGION, _features(mirp, image, part, chosen, volume))
                )
    known = {name: "as mirp defines it (IBSI)" for row in rows for name in row.values}
    spacing = list(volume.grid.spacing_mm)
    return Measurement(tuple(rows), {}, {"radiomics": recorded, "spacing_mm": spacing}, known)


def check_installed() -> None:
    """Raises ResourceError without mirp (``missing-extra``); call it before long work."""
    _mirp()


def _mirp() -> Any:
    try:
        with quiet_libraries.quiet():
            import mirp
    except ImportError as error:
        raise ResourceError(
            "mirp, which computes radiomic features, is not installed",
            remedy="pip install 'medseg[radiomics]'",
            reason="missing-extra",
        ) from error
    return mirp


def _features(
    mirp: Any, image: Path, mask: Path, settings: Mapping[str, Any], scan: Volume
) -> dict[str, float | None]:
    """Mirp's table of one region as numbers by column; None where it has none."""
    try:
        with quiet_libraries.quiet():
            (table,) = mirp.extract_features(
                image=str(image), mask=str(mask), image_modality="ct", **settings
            )
    except Exception as error:  # of another package, with no tree of its own
        raise UsageError(
            f"mirp computes no features: {type(error).__name__}: {error}",
            where=scan.source.path or "mirp",
            remedy="correct mirp's settings, or measure a larger region",
            reason="measure",
        ) from error
    found: dict[str, float | None] = {}
    for name, value in table.iloc[0].items():
        if not str(name).startswith(_ABOUT):
            number = float(value)
            found[f"{PREFIX}{name}"] = number if np.isfinite(number) else None
    return found
