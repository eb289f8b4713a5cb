"""The report of a batch, an evaluation, a training, a cross-validation or a learning curve."""

from __future__ import annotations

from pathlib import Path

from medseg.reporting import cross_validation, learning_curve
from medseg.reporting.cohort import CohortOptions
from medseg.reporting.page import report_cases
from medseg.system.progress import Shown

_TRAINING = "run.json"
"""A file that only a training writes: see :mod:`medseg.training.provenance`."""


def report(
    folder: str | Path,
    *,
    clinical: str | Path | None = None,
    group: str | None = None,
    visit: str | None = None,
    progress: Shown = False,
) -> Path:
    """Writes an HTML report of an output folder and returns the path of the report.

    The file opens from disk and loads nothing from the network. For a batch or an evaluation it is
    ``report.html``, with the worst cases first; for a training ``summary.html``, with the learning curves;
    for a cross-validation ``report.html``, with scores out of fold and the curves of each fold; for a
    learning curve ``report.html``, with its chart.

    Args:
        folder: The output folder of :func:`medseg.batch`, :func:`medseg.evaluate`, :func:`medseg.train`,
            :func:`medseg.cross_validate` or ``medseg learn-curve``.
        clinical: A CSV table of a batch that measured lungs, with a row for each case (column ``case`` or
            ``id``) or patient (``patient``).
        group: Its column with the groups that are compared; by default ``group``, if there is one.
        visit: Its column with the visit or date of a scan, such as 2026-11-28; by default ``visit`` or
            ``date``, else the study in results.csv. Patients with two visits get paired plots.
        progress: Whether to show a progress bar; None shows it on a terminal only. A function is called
            instead.

    Raises:
        UsageError: there is nothing to report on (``nothing-to-report``), a table is damaged (``table``), or
            the clinical table cannot be used (``clinical-table``).
        ResourceError: the disk fails (``disk``).

    Example:
        >>> medseg.report("first").name
        'report.html'
    """
    cohort = CohortOptions(clinical, group, visit)
    if (Path(folder) / _TRAINING).is_file():
        from medseg.reporting.training import summary  # imports torch, which other reports do not need

        return summary(folder)
    if (Path(folder) / cross_validation.FOLDS).is_file():
        return cross_validation.summary(folder)
    if (Path(folder) / learning_curve.TABLE).is_file():
        return learning_curve.summary(folder)
    return report_cases(folder, cohort=cohort, progress=progress)
