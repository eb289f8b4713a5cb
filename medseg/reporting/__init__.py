"""One HTML file that shows how a batch, an evaluation or a training went, without any network."""

from __future__ import annotations

from medseg.reporting.folder_report import report

__all__ = ["report"]
