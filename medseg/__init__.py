"""Medical scans in, checked segmentation masks out. Research use only.

>>> import medseg
>>> mask = medseg.segment("chest.nii.gz", model="runs/lungs/model.safetensors")  # doctest: +SKIP
>>> mask.volumes_ml()                                                            # doctest: +SKIP
{'lungs': 4312.7}
>>> mask.save("lungs.nii.gz")                                                    # doctest: +SKIP

Importing medseg is cheap: each name is imported from its module when it is first used, and torch and
MONAI only where something is segmented or trained.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medseg.errors import InputRefused, MedsegError, ModelRefused, ResourceError, UsageError
    from medseg.images.grid import Grid
    from medseg.images.label import Label
    from medseg.images.volume import Mask, Volume
    from medseg.inference.registry import segment
    from medseg.io import read, read_mask, write
    from medseg.visualization.overlays import picture as preview
    from medseg.visualization.thumbnails import card as html_card
    from medseg.visualization.viewer.widget import view

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
    "html_card",
    "preview",
    "read",
    "read_mask",
    "segment",
    "view",
    "write",
]

_HOME = {
    "Grid": "medseg.images.grid",
    "InputRefused": "medseg.errors",
    "Label": "medseg.images.label",
    "Mask": "medseg.images.volume",
    "MedsegError": "medseg.errors",
    "ModelRefused": "medseg.errors",
    "ResourceError": "medseg.errors",
    "UsageError": "medseg.errors",
    "Volume": "medseg.images.volume",
    "html_card": "medseg.visualization.thumbnails:card",
    "preview": "medseg.visualization.overlays:picture",
    "read": "medseg.io",
    "read_mask": "medseg.io",
    "segment": "medseg.inference.registry",
    "view": "medseg.visualization.viewer.widget",
    "write": "medseg.io",
}
"""Module of each public name, with the name there where it is another one."""


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'medseg' has no attribute {name!r}")
    module, _, there = _HOME[name].partition(":")
    found = getattr(import_module(module), there or name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
