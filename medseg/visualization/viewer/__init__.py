"""The viewer of a scan and its masks, in a browser or a notebook: NiiVue from the package ipyniivue."""

from __future__ import annotations

from medseg.visualization.viewer.scene import scene
from medseg.visualization.viewer.server import Server

__all__ = ["Server", "scene"]
