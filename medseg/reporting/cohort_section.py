"""The section of a report about the lungs of many cases."""

from __future__ import annotations

import statistics

from medseg.images.palette import colour_of
from medseg.reporting.charts import short_number
from medseg.reporting.cohort import Cohort
from medseg.reporting.cohort_charts import group_chart, paired_chart
from medseg.reporting.lung_charts import hu_histogram, region_bars
from medseg.reporting.quantities import quantity_of
from medseg.system.html import render


def cohort_section(cohort: Cohort) -> str:
    """The section as HTML: a table and a chart of each measure by group, and the changes between visits."""
    quantities = {name: quantity_of(name) for name in (*cohort.estimates, *cohort.changes)}
    curves = [
        (group, colour_of(number), "", each) for number, (group, each) in enumerate(cohort.histograms.items())
    ]
    return render(
        "medseg.reporting",
        "cohort.html",
        cohort=cohort,
        quantity=quantity_of,
        figure=short_number,
        median=statistics.median,
        group_charts=[
            group_chart(quantities[name].name, quantities[name].unit, groups)
            for name, groups in cohort.estimates.items()
        ],
        overview=[
            hu_histogram("Mean histogram of both lungs", curves),
            region_bars(f"Mean below {cohort.below_hu:g} HU by region", cohort.below_hu, cohort.regions),
        ],
        paired_charts=[
            paired_chart(quantities[name].name, quantities[name].unit, change)
            for name, change in cohort.changes.items()
        ],
    )
