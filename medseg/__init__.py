"""Medical scans in, checked segmentation masks out. Research use only.

>>> import medseg
>>> mask = medseg.segment("chest.nii.gz", model="runs/lungs/model.safetensors")  # doctest: +SKIP
>>> mask.volumes_ml()                                                            # doctest: +SKIP
{'lungs': 4312.7}
>>> mask.save("lungs.nii.gz")                                                    # doctest: +SKIP

Importing medseg is cheap: torch and MONAI are imported when something is segmented or trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg.errors import InputRefused, MedsegError, ModelRefused, ResourceError, UsageError
from medseg.grid import Grid
from medseg.io import read, read_mask, write
from medseg.label import Label
from medseg.volume import Mask, Volume

__all__ = [
    "Grid",
    "InputRefused",
    "Label",
    "Mask",
    "MedsegError",
    "ModelRefused",
    "ResourceError",
    "UsageError",
    "Volume",
    "read",
    "read_mask",
    "segment",
    "view",
    "write",
]


def segment(
    scan: str | Path | Volume | Sequence[str | Path | Volume],
    *,
    model: str | Path | None = None,
    series: str | None = None,
    device: str = "cpu",
    engine: str = "auto",
) -> Mask:
    """The mask of one scan, on exactly the scan's grid.

    For several scans make one :class:`medseg.segmenter.Segmenter`, which loads the model once.

    Args:
        scan: A file, a DICOM folder or a volume; several for a model of several channels.
        model: A model file, a name of ``medseg models``, or ``threshold``; ``lung_ct`` if None.
        series: Which DICOM series, where a folder holds several.
        device: Where the network runs, as torch names it.
        engine: What runs it: ``auto``, ``torch``, ``openvino`` or ``onnx``.

    Raises:
        InputRefused: the scan cannot be read or trusted, or has other channels than the model.
        ModelRefused: the model is damaged or does not fit.
        UsageError: no such model, device or engine.
    """
    from medseg.io import Choices, read_channels
    from medseg.methods import method

    segment_scan = method(model, device=device, engine=engine)
    parts = (scan,) if isinstance(scan, str | Path | Volume) else tuple(scan)
    if all(isinstance(part, Volume) for part in parts):
        return segment_scan([part for part in parts if isinstance(part, Volume)])
    paths = [part for part in parts if not isinstance(part, Volume)]
    channels = len(segment_scan.channels)
    # Prepared before it is segmented, so that nothing holds the scan any longer than the recipe needs it.
    return segment_scan.ready(read_channels(paths, channels=channels, choices=Choices(series=series)))()


def view(scan: str | Path | Volume, *masks: str | Path | Mask, height: int = 480) -> Any:
    """A scan with up to two masks in a notebook: a widget with three planes and 3D, without network.

    Outside of a notebook use ``medseg view``.

    Args:
        scan: A file, a DICOM folder or a volume.
        masks: Files or masks, on the scan's grid.
        height: Of the widget, in pixels.

    Raises:
        InputRefused: a file cannot be read or trusted.
        UsageError: more than two masks (``viewer-masks``), or one on another grid (``grid-mismatch``).
        ResourceError: ipyniivue is not installed (``missing-extra``).
    """
    from medseg.named import read_named
    from medseg.viewer.widget import widget

    found = scan if isinstance(scan, Volume) else read(scan)
    named = [mask if isinstance(mask, Mask) else read_named(mask, found) for mask in masks]
    return widget(found, *named, height=height)
