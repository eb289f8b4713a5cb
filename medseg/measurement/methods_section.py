"""A paragraph for the methods section of an article: what was measured, how, and with which software."""

from __future__ import annotations

from medseg.measurement import (
    lesion_growth,
    lesions,
    lobes,
    lung_measures,
    measures,
    response_map,
    structures,
)
from medseg.measurement.measurement_table import Measurement
from medseg.measurement.references import bibtex
from medseg.system.own_version import own_version

_CLASSES = ("emphysema", "small_airways", "normal")


def methods_text(found: Measurement) -> str:
    """Markdown text for a methods section: a paragraph with pandoc citation keys, caveats, and BibTeX.

    Args:
        found: A measurement; the paragraph mentions only measures that it contains.

    Example:
        >>> text = medseg.methods_text(medseg.measure("chest.nii.gz", "lungs.nii.gz"))
        >>> "HU < -950" in text, "@article{gevenois1996" in text
        (True, True)
    """
    columns = {name for row in found.rows for name in row.values}
    parts = [_masks(found)]
    keys: list[str] = []
    if found.settings.get("pair"):
        parts.append(_pair(found))
        keys += [
            "copdgene2010",
            "gevenois1996",
            *(["galban2012"] if "registration" in found.settings else []),
        ]
    lung = (
        [] if found.settings.get("pair") else list(measures.REGISTRY) if "rind_mm" in found.settings else []
    )
    if lung:
        clauses = []
        for name in lung:
            measure = measures.REGISTRY[name]
            keys += measure.source
            clauses.append(measure.definition + _cited(measure.source))
        parts.append(
            "For each lung and both together, whole and in thirds by volume and by height, ventral and "
            f"dorsal halves, and a core and a rind of {found.settings['rind_mm']:g} mm, we computed: "
            f"{'; '.join(clauses)}."
        )
        keys.append("mishima1999")
        clusters = lung_measures.CLUSTERS
        parts.append(
            f"Low attenuation clusters are {clusters['laa950_clusters']}; {clusters['laa950_d']}"
            f"{_cited(('mishima1999',))}."
        )
        parts.append(_calibration(found))
    if any(row.structure.endswith("_lobe") for row in found.rows):
        parts.append("The same was computed for each lobe.")
    if "ct_severity" in columns:
        keys.append("pan2020")
        parts.append(f"The CT severity score of a lobe is {lobes.DEFINITIONS['ct_severity']} [@pan2020].")
    if "surface_mm2" in columns:
        keys.append("ibsi2020")
        definitions = "; ".join(
            structures.DEFINITIONS[name] for name in ("surface_mm2", "sphericity", "max_diameter_mm")
        )
        parts.append(
            f"Other structures were described by volume, intensities and shape ({definitions}) [@ibsi2020]."
        )
    if "nelson_class" in columns:
        keys.append("nelson2009")
        low, high = lesions.NELSON_MM3
        parts.append(
            f"Lesions are 26-connected and were classed by volume (below {low:g}, up to {high:g} and above "
            f"{high:g} mm³) [@nelson2009]."
        )
    if "radiomics" in found.settings:
        keys += ["mirp2024", "ibsi2020"]
        made = found.settings["radiomics"]
        chosen = ", ".join(f"{name} {value}" for name, value in made["settings"].items())
        parts.append(
            f"Radiomic features were computed by mirp {made['mirp']} ({chosen}) [@mirp2024; @ibsi2020]."
        )
    if "growth_days" in found.settings:
        keys.append("nelson2009")
        grown = lesion_growth.DEFINITIONS
        parts.append(
            f"Between two scans ({found.settings['growth_days']:g} days here) lesions were compared by "
            f"{grown['doubling_days']}. A change counts only beyond {lesions.REPEATABILITY_PERCENT:g} %, the "
            f"repeatability of volumes; a lesion grows from {lesions.GROWTH_PERCENT:g} % on, with a doubling "
            f"time below {lesions.GROWING_DAYS:g} days [@nelson2009]."
        )
    return f"{' '.join(part for part in parts if part)}\n\n```bibtex\n{bibtex(keys)}```\n"


def _pair(found: Measurement) -> str:
    """Scans in inspiration and expiration: what was compared, and how they were registered."""
    text = (
        "For each lung and both together, whole and in thirds by volume and by height, ventral and dorsal "
        f"halves, and a core and a rind of {found.settings['rind_mm']:g} mm of each scan, we computed volume "
        "and mean density in inspiration and expiration with their changes, LAA-950 in inspiration (share of "
        "voxels with HU < -950) [@gevenois1996], and air trapping (share with HU < -856 in expiration) "
        "[@copdgene2010]. HU were not corrected."
    )
    how = found.settings.get("registration")
    if how is None:
        return text
    ways = {
        "simpleitk": "The expiration was registered to the inspiration with SimpleITK (alignment of the "
        "lungs' boxes, then fast symmetric forces demons on relative density at 3 mm)",
        "displacement field": "The expiration was put on the inspiration's grid by a displacement field made "
        "as described elsewhere",
        "registered scan": "The expiration was registered to the inspiration's grid as described elsewhere",
    }
    dice = found.fitness.get("registration_dice")
    fit = (
        f"; both lungs then overlap with a Dice of {float(str(dice)):.3f} in this pair"
        if dice is not None
        else ""
    )
    classes = "; ".join(response_map.DEFINITIONS[f"prm_{name}_percent"] for name in _CLASSES)
    return (
        f"{text} {ways[how]}{fit}. The parametric response map, without smoothing, has: {classes} "
        "[@galban2012]."
    )


def _masks(found: Measurement) -> str:
    made = found.settings.get("mask_by")
    by = f" by the model {made['recipe']} (SHA-256 {made['model_sha256']}, {made['engine']})" if made else ""
    shape = " x ".join(f"{mm:.3g}" for mm in found.settings["spacing_mm"])
    return (
        f"Masks were made{by or ' as described elsewhere'} and measured with medseg {own_version()} on "
        f"the grid of each scan, without resampling (voxels here: {shape} mm)."
    )


def _calibration(found: Measurement) -> str:
    factor = float(str(found.fitness.get("hu_factor") or 1.0))
    if factor != 1:
        return (
            f"HU were multiplied by {factor:.4f} in this scan, so that the air in its trachea has -1000 HU."
        )
    return "HU were not corrected."


def _cited(keys: tuple[str, ...]) -> str:
    return f" [{'; '.join(f'@{key}' for key in keys)}]" if keys else ""
