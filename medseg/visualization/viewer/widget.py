"""The viewer in a notebook: the widget of ipyniivue, which needs no server and no network."""

from __future__ import annotations

import json
from typing import Any

from medseg.errors import ResourceError
from medseg.images.palette import rgb
from medseg.images.volume import Mask, Volume
from medseg.io.foreign_images import MaskLike, ScanLike, as_volume
from medseg.io.label_maps import notify_of_labels
from medseg.visualization.mask_preview import named_mask
from medseg.visualization.viewer.scene import scene


def widget(scan: Volume, *masks: Mask, height: int = 480) -> Any:
    """A widget with the scan and up to two masks, in three planes and 3D, with controls; radiological view.

    Args:
        scan: The scan.
        masks: Masks on its grid. Two masks get a third layer for their difference; the first is shown first.
        height: Height of the widget in pixels.

    Raises:
        ResourceError: ipyniivue is not installed (``missing-extra``).
        UsageError: as :func:`medseg.visualization.viewer.scene.scene`.
    """
    try:
        from ipyniivue import NiiVue
    except ImportError:
        raise ResourceError(
            "the viewer is not installed", remedy="pip install 'medseg[view]'", reason="missing-extra"
        ) from None
    files = scene(scan, [(f"mask {number}", mask) for number, mask in enumerate(masks, start=1)]).files
    facts = json.loads(files["scene.json"])
    low, high = next(iter(facts["presets"].values()))
    first = {
        "data": files["scan.nii"],
        "name": "scan.nii",
        "colormap": "gray",
        "cal_min": low,
        "cal_max": high,
    }
    volumes: list[dict[str, Any]] = [first]
    for layer in facts["masks"]:
        volumes.append({"data": files[layer["file"]], "name": layer["file"]})
    shown = NiiVue(
        height=height,
        is_radiological_convention=True,
        sagittal_nose_left=True,
        multiplanar_force_render=True,
        show_all_orientation_markers=True,
        back_color=(0.06, 0.08, 0.09, 1.0),
    )
    shown.load_volumes(volumes)
    for volume, layer in zip(shown.volumes[1:], facts["masks"], strict=True):
        volume.set_colormap_label(_colours(layer["labels"]))
    from medseg.visualization.viewer.notebook_controls import NotebookViewer

    return NotebookViewer(shown, facts)


def _colours(labels: list[dict[str, Any]]) -> dict[str, Any]:
    """NiiVue's colour table of a label map: red, green, blue, alpha, index and name."""
    rows = [(0, 0, 0, 0, 0, "none")]
    for label in labels:
        rows.append((*rgb(label["colour"]), 255, label["value"], label["name"]))
    columns = map(list, zip(*rows, strict=True))
    return dict(zip(("R", "G", "B", "A", "I", "labels"), columns, strict=True))


def view(scan: ScanLike, *masks: MaskLike, height: int = 480) -> Any:
    """A notebook widget of a scan with up to two masks: three planes and 3D, without network access.

    Buttons above choose the window, the mask (or the difference of two), fill or contour, and opacity. The
    result has them as ``window``, ``layer``, ``drawn`` and ``opacity``, and its layers as ``volumes``.
    Outside a notebook use :func:`medseg.serve_viewer`.

    Args:
        scan: A path, a volume, or an image of another library that :func:`medseg.as_volume` accepts.
        masks: Masks in the same forms, on the scan's grid.
        height: Height of the widget in pixels.

    Raises:
        InputRefused: a file cannot be read or trusted.
        UsageError: more than two masks (``viewer-masks``), or one on another grid (``grid-mismatch``).
        ResourceError: ipyniivue is not installed (``missing-extra``).

    Example:
        >>> shown = medseg.view("chest.nii.gz", "lungs.nii.gz")
        >>> len(shown.volumes)
        2
    """
    volume = as_volume(scan)
    notify_of_labels(volume)
    return widget(volume, *(named_mask(mask, volume) for mask in masks), height=height)
