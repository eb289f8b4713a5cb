"""The viewer of a notebook with its controls: window, which mask, fill or contour, opacity, volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ipywidgets import HTML, FloatSlider, HBox, ToggleButtons, VBox

_NONE = 0.001
"""Opacity of a layer that is not filled: NiiVue leaves out the contours of layers whose opacity is 0."""


class NotebookViewer(VBox):  # type: ignore[misc]  # ipywidgets has no types
    """A widget with a scan and its masks, and buttons above.

    Attributes:
        niivue: The widget of ipyniivue with the pictures.
        window: Buttons with the presets of the window.
        layer: Buttons with the masks, and with their difference if there are two.
        drawn: ``fill``, ``contour`` or ``both``.
        opacity: Opacity of the fill; of the contours if they are alone.
    """

    def __init__(self, niivue: Any, facts: Mapping[str, Any]) -> None:
        """Args: the widget with its volumes loaded, and the description in ``scene.json``."""
        self.niivue, self._presets, self._masks = niivue, facts["presets"], facts["masks"]
        names = [mask["name"] for mask in self._masks]
        self.window = ToggleButtons(options=list(self._presets), description="window")
        self.layer = ToggleButtons(options=names or ["none"], description="mask")
        self.drawn = ToggleButtons(options=["fill", "contour", "both"], description="drawn")
        self.opacity = FloatSlider(0.5, min=0, max=1, step=0.05, description="opacity")
        self._volumes = HTML()
        for control in (self.window, self.layer, self.drawn, self.opacity):
            control.observe(lambda _: self._update(), "value")
        rows = [[self.window], [self.layer, self.drawn, self.opacity], [self._volumes]]
        shown = rows if self._masks else rows[:1]
        super().__init__([*(HBox(row) for row in shown), niivue])
        self._update()

    @property
    def volumes(self) -> Sequence[Any]:
        """The layers of the widget: the scan, the masks, and their difference."""
        layers: Sequence[Any] = self.niivue.volumes
        return layers

    def _update(self) -> None:
        scan, *layers = self.volumes
        scan.cal_min, scan.cal_max = self._presets[self.window.value]
        kind, strength = self.drawn.value, self.opacity.value
        outline = {"fill": 0.0, "contour": strength, "both": 1.0}[kind]
        self.niivue.set_atlas_outline(outline)
        for layer, mask in zip(layers, self._masks, strict=True):
            chosen = mask["name"] == self.layer.value
            layer.opacity = (_NONE if kind == "contour" else strength) if chosen else 0.0
            if chosen:
                self._volumes.value = " &nbsp; ".join(_named(label) for label in mask["labels"])


def _named(label: Mapping[str, Any]) -> str:
    name = escape(str(label["name"]).replace("_", " "))
    return f'<span style="color:{label["colour"]}">■</span> {name} {label["volume"]}'
