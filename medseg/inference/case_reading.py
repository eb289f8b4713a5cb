"""The scans of a case, read in a thread beside other work."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from medseg.errors import InputRefused
from medseg.images.volume import Volume
from medseg.io import read_channels
from medseg.io.dicomweb.address import DicomwebAddress, is_address
from medseg.io.dicomweb.connection import mention_unencrypted
from medseg.io.dicomweb.local_copies import LocalCopies
from medseg.io.foreign_images import ScanLike, as_volume
from medseg.io.read_options import DEFAULT_OPTIONS, ReadOptions
from medseg.system import memory_budget
from medseg.system.notices import Notice, collect_notices, send

ROOM_BYTES = 2 << 30
"""Free memory with which the next scan is read while one is segmented: 512 x 512 x 300 voxels take 0.3 GB to
read, and the network up to 1.2 GB."""


class CaseReading:
    """The scans of one case, which may be read before they are needed.

    Args:
        scans: One scan per channel: paths, images that :func:`medseg.as_volume` accepts, or ``dicomweb://``
            addresses, of which :meth:`close` removes the copies.
        options: How to read them when a file leaves a question open.

    Attributes:
        scans: The scans.
        options: The options.
    """

    def __init__(self, scans: Sequence[ScanLike], options: ReadOptions = DEFAULT_OPTIONS) -> None:
        self.scans, self.options = tuple(scans), options
        self._reading: Future[tuple[Volume, ...]] | None = None
        self._notices: list[Notice] = []
        self._copies = LocalCopies()

    @property
    def paths(self) -> list[str | Path]:
        """Those of the scans that are files."""
        return [scan for scan in self.scans if isinstance(scan, str | Path)]

    def start(self) -> None:
        """Begins to read in a thread, unless that has begun already."""
        if self._reading is None:
            pool = ThreadPoolExecutor(1, thread_name_prefix="medseg-read")
            self._reading = pool.submit(self._read, len(self.scans))
            pool.shutdown(wait=False)

    def start_ahead(self) -> None:
        """Begins to read if there is memory to spare; the case is read when it is needed otherwise."""
        free = memory_budget.available_bytes()
        if free is None or free >= ROOM_BYTES:
            self.start()

    def volumes(self, channels: int) -> tuple[Volume, ...]:
        """The scans; can be asked for once, and notices about them are sent now.

        Args:
            channels: Number of channels that the model needs.

        Raises:
            InputRefused: a scan cannot be read or trusted, or there are more or fewer than ``channels``.
        """
        reading, self._reading = self._reading, None
        try:
            if reading is not None and channels == len(self.scans):
                try:
                    return reading.result()
                except (InputRefused, MemoryError) as error:
                    # There may be room now that the case before is done.
                    if getattr(error, "reason", "memory") not in ("memory", "too-large"):
                        raise
            del reading
            return self._read(channels)
        finally:
            send([self._copies.notice(each) for each in self._notices])

    def close(self) -> None:
        """Removes copies of scans of a DICOMweb server, once the mask that refers to them is written."""
        self._copies.close()

    def _read(self, channels: int) -> tuple[Volume, ...]:
        with collect_notices() as self._notices, self._copies.named():
            for address in [DicomwebAddress.parse(path) for path in self.paths if is_address(path)]:
                mention_unencrypted(address)
            paths = self._copies.fetch(self.paths)
            if len(paths) == len(self.scans):
                volumes = read_channels(paths, channels=channels, choices=self.options)
                return self._copies.named_sources(volumes)
            return tuple(as_volume(scan, self.options) for scan in self.scans)
