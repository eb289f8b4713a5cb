"""What a report shows of the measured lungs of a case."""

from __future__ import annotations

from dataclasses import replace

from medseg.images.volume import Mask, Volume
from medseg.inference.case_result import ModelIdentity
from medseg.measurement.measure_picture import lung_figure
from medseg.measurement.measurement_table import Measurement
from medseg.measurement.methods_section import methods_text
from medseg.visualization.lung_record import LungRecord, lung_record


def measured_lungs(
    found: Measurement, scan: Volume, mask: Mask, model: ModelIdentity
) -> LungRecord | dict[str, object]:
    """Picture, histograms, regions and methods paragraph of a case; empty if no lungs were measured.

    Args:
        found: The measures of this scan and mask.
        scan: The CT.
        mask: On the same grid.
        model: What made the mask.
    """
    if not found.histograms:
        return {}
    maker = {"recipe": model.name, "model_sha256": model.sha256, "engine": model.engine}
    made = replace(found, settings={**found.settings, "mask_by": maker})
    return lung_record(lung_figure(found, scan, mask), methods=methods_text(made))
