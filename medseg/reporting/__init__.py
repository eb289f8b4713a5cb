"""One HTML file that tells how a batch or an evaluation went: it opens from the disk and asks no network."""

from __future__ import annotations

from medseg.reporting.page import report

__all__ = ["report"]
