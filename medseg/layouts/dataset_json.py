"""Medical Segmentation Decathlon and nnU-Net: a folder with a ``dataset.json``."""

from __future__ import annotations

from pathlib import Path

from medseg.layouts.found import Found
from medseg.manifest import Manifest


def matches(folder: Path) -> bool:
    """Whether there is a ``dataset.json``."""
    return (folder / "dataset.json").is_file()


def find(folder: Path, _: Path) -> Found:
    """The cases that the file lists."""
    return Found(Manifest.read(folder).cases)
