"""HTML reports of a batch, an evaluation or a training; each is one file that needs no network."""

from __future__ import annotations

from medseg.reporting.folder_report import report

__all__ = ["report"]
