"""The report of a folder, whatever was done in it."""

from __future__ import annotations

from pathlib import Path

from medseg.reporting.page import report_cases

_TRAINING = "run.json"
"""What only a training leaves behind: see :mod:`medseg.training.provenance`."""


def report(folder: str | Path) -> Path:
    """The path of an HTML file that shows how a batch, an evaluation or a training went.

    It opens from the disk and loads nothing from elsewhere. Of a batch or an evaluation it is
    ``report.html``, the worst cases first; of a training ``summary.html``, with its curves.

    Args:
        folder: What :func:`medseg.batch`, :func:`medseg.evaluate` or :func:`medseg.train` has written.

    Raises:
        UsageError: there is nothing to report on (``nothing-to-report``), or a table is damaged (``table``).
        ResourceError: the disk refuses (``disk``).

    Example:
        >>> medseg.report("first").name
        'report.html'
    """
    if (Path(folder) / _TRAINING).is_file():
        from medseg.reporting.training import summary  # imports torch, which other reports do not need

        return summary(folder)
    return report_cases(folder)
