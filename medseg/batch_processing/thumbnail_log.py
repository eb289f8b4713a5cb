"""``thumbnails.jsonl``: small pictures of all masks of a batch, kept as carefully as its journal."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from medseg.batch_processing.journal import cut_off
from medseg.batch_processing.lung_pictures import measured_lungs
from medseg.batch_processing.messages import BatchConfig
from medseg.errors import MedsegError, ResourceError
from medseg.images.label import Label
from medseg.inference.case_result import CaseResult, ModelIdentity
from medseg.io import ReadOptions, read_channels, read_mask
from medseg.io.formats import picture_ending
from medseg.io.picture.reader import read_luminance
from medseg.measurement.scan_measurement import measure
from medseg.system.notices import collect_notices
from medseg.visualization import thumbnails
from medseg.visualization.case_slices import case_slices

NAME = "thumbnails.jsonl"


class ThumbnailLog:
    """Thumbnails of one run, open for appending; an incomplete last line is cut off.

    Args:
        path: The file; created if it does not exist.

    Raises:
        ResourceError: the disk fails (``disk``).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("ab")
            cut_off(path)
            self._known = set(thumbnails.places(sorted(path.parent.glob("thumbnails*.jsonl"))))
        except OSError as error:
            raise self._refused(error) from error

    def add(self, result: CaseResult) -> None:
        """Adds the pictures of a case, and returns when the disk has them.

        Raises:
            ResourceError: the disk fails (``disk``).
        """
        try:
            pictures = result.thumbnail, result.slices, result.lung
            self._file.write(thumbnails.line(result.case, result.model, *pictures).encode())
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._refused(error) from error
        self._known.add((result.case, result.model))

    def ensure(
        self,
        result: CaseResult,
        images: Sequence[Path],
        folder: Path,
        model: ModelIdentity,
        config: BatchConfig,
    ) -> None:
        """Draws the picture of a finished case again if it was lost.

        Args:
            result: The result of the case.
            images: Its scan, one file or folder per channel.
            folder: The output folder.
            model: What made the mask.
            config: How every case is read.
        """
        if (result.case, result.model) in self._known:
            return
        options = ReadOptions(None, None, config.trust, config.nonfinite)  # type: ignore[arg-type]
        labels = tuple(Label(name=name, values=values) for name, values in model.labels.items())
        try:
            with collect_notices():
                if picture_ending(images[0]):
                    scan = read_luminance(images[0], options)
                else:
                    scan = read_channels(images, channels=len(images), choices=options)[0]
                mask = read_mask(folder / result.mask, labels)
                lung = measured_lungs(measure(scan, mask), scan, mask, model) if result.measures else {}
            image, slices = thumbnails.encoded(thumbnails.thumbnail(scan, mask)), case_slices(scan, mask)
        except MedsegError:  # a case without a picture is still done
            return
        self.add(replace(result, thumbnail=image, slices=slices, lung=lung))

    def close(self) -> None:
        """Closes the file; lines that did not fit on a full disk are discarded."""
        try:
            self._file.close()
        except OSError:
            return

    def _refused(self, error: OSError) -> ResourceError:
        return ResourceError(
            f"cannot write the thumbnails: {error.strerror or error}",
            where=self.path,
            remedy="free some space or correct the permissions, then continue with --resume",
            reason="disk",
        )
