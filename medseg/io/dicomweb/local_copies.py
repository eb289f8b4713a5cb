"""Copies of series in a temporary folder, which no message and no table mentions."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from medseg.errors import MedsegError
from medseg.images.volume import Source, Volume
from medseg.io.dicomweb.address import DicomwebAddress, is_address
from medseg.system.notices import Notice


class LocalCopies:
    """The series of one case, in a folder of mode 0700 that :meth:`close` removes.

    Args:
        parent: Folder for it, created if needed; the system's temporary folder by default.
    """

    def __init__(self, parent: Path | None = None) -> None:
        self._parent = parent
        self._lock, self._closed = threading.Lock(), False
        self._folder: Path | None = None
        self._names: dict[str, str] = {}

    def fetch(self, paths: Sequence[str | Path]) -> list[str | Path]:
        """The paths, with the folder of a fresh copy in place of each address.

        Raises:
            MedsegError: as :func:`medseg.io.dicomweb.retrieval.fetch_series`; nothing is left then.
        """
        return [self._local(path) if is_address(path) else path for path in paths]

    def _local(self, path: str | Path) -> Path:
        from medseg.io.dicomweb.retrieval import fetch_series

        address = DicomwebAddress.parse(path)
        with self._lock:
            if self._closed:
                raise RuntimeError("copies that are closed")
            if self._folder is None:
                if self._parent is not None:
                    self._parent.mkdir(parents=True, exist_ok=True)
                self._folder = Path(tempfile.mkdtemp(prefix="medseg-dicomweb-", dir=self._parent))
            whole = self._folder
        folder = whole / str(len(self._names))
        self._names[str(folder)] = str(address)
        complete = False
        try:
            folder.mkdir()
            made = fetch_series(address, folder)
            complete = True
        finally:
            # Closed meanwhile, by another thread: what has arrived since must not stay.
            if self._closed or not complete:
                self._discard(whole)
        return made

    @contextmanager
    def named(self) -> Iterator[None]:
        """Errors of the block name the address in place of the copy."""
        try:
            yield
        except MedsegError as error:
            error.problem = self.text(error.problem)
            error.where = error.where and self.text(error.where)
            error.remedy = error.remedy and self.text(error.remedy)
            error.details = tuple(map(self.text, error.details))
            raise

    def named_sources(self, volumes: Sequence[Volume]) -> tuple[Volume, ...]:
        """The volumes, whose source has the address in place of the copy; ``files`` are those of the copy."""
        if not self._names:
            return tuple(volumes)
        return tuple(replace(each, source=self._named_source(each.source)) for each in volumes)

    def _named_source(self, source: Source) -> Source:
        return source if source.path is None else replace(source, path=Path(self.text(str(source.path))))

    def text(self, text: str) -> str:
        """A text with the address in place of each copy."""
        for folder, address in reversed(self._names.items()):  # /10 before /1
            text = text.replace(folder, address)
        return text

    def notice(self, notice: Notice) -> Notice:
        """A notice with the address in place of each copy."""
        path = None if notice.path is None else self.text(notice.path)
        return replace(notice, text=self.text(notice.text), path=path)

    def close(self) -> None:
        """Removes the copies, also those that another thread is still fetching; they can still be named."""
        with self._lock:
            self._closed = True
            folder = self._folder
        if folder is not None:
            self._discard(folder)

    def _discard(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self._folder = None
