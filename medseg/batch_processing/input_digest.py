"""Digest of the files that a case is read from, in the order in which they are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medseg.batch_processing.fingerprint import digest
from medseg.batch_processing.messages import BatchConfig
from medseg.errors import MedsegError
from medseg.images.volume import Volume
from medseg.io import ReadOptions, read_channels
from medseg.io.formats import partner, picture_ending
from medseg.io.image_files import data_files
from medseg.system.notices import collect_notices


def input_digest(images: Sequence[Path], config: BatchConfig) -> str:
    """SHA-256 of the content of a case's input; empty if it cannot be read.

    Args:
        images: One file or folder per channel.
        config: How every case is read.
    """
    options = ReadOptions(None, None, config.trust, config.nonfinite)  # type: ignore[arg-type]
    try:
        if all(picture_ending(path) for path in images):  # each is one file, in grey or colour
            return digest(list(images))
        with collect_notices():
            volumes = read_channels(images, channels=len(images), choices=options)
        return digest(read_files(volumes, images))
    except (MedsegError, OSError):
        return ""


def read_files(volumes: Sequence[Volume], images: Sequence[Path]) -> list[Path]:
    """The files that were read: for DICOM the slices, else the given paths and the voxels of headers."""
    files = [path for volume in volumes for path in volume.source.files]
    return files or [file for path in images if path.is_file() for file in _with_voxels(path)]


def _with_voxels(image: Path) -> list[Path]:
    """An image and the files that hold its voxels, if it is a header without them."""
    other = partner(image)
    return [image, *data_files(image), *([] if other is None else [other])]
