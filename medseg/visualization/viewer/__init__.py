"""A scan and its masks in the browser, or in a notebook: NiiVue, from the installed package ipyniivue."""

from __future__ import annotations

from medseg.visualization.viewer.scene import scene
from medseg.visualization.viewer.server import Server

__all__ = ["Server", "scene"]
