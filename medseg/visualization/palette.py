"""One colour a label, in pictures, reports and the viewer."""

from __future__ import annotations

COLOURS = ("#56B4E9", "#E69F00", "#009E73", "#F0E442", "#CC79A7", "#D55E00", "#0072B2")
"""Okabe and Ito's palette (2008, jfly.uni-koeln.de/color), told apart by colour-blind eyes; without black."""
