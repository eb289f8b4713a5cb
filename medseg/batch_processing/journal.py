"""The journal of a batch: one line of JSON per event, flushed to the disk before the next event.

Lines are only ever added: a case that is segmented again gets a later line. An incomplete last line, left by
a killed process, is cut off when the journal is opened again.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

from medseg.errors import ResourceError
from medseg.inference.batch_events import BatchStart
from medseg.inference.case_result import CaseResult

Record: TypeAlias = dict[str, Any]
Key: TypeAlias = tuple[str, str]
"""Case and model."""

NAME = "journal.jsonl"

_FIRST = b'{"event": "start", "time": '


class Journal:
    """The journal of one run, open for appending.

    Args:
        path: The file; created if it does not exist.
        first: Sequence number of the next line: larger than any in the journals of the folder.

    Raises:
        ResourceError: the disk refuses (``disk``).
    """

    def __init__(self, path: Path, *, first: int = 1) -> None:
        self.path, self._next = path, first
        try:
            self._file = path.open("ab")
            cut_off(path)
        except OSError as error:
            raise _refused(path, error) from error

    def append(self, record: Record) -> None:
        """Adds a line with the next sequence number, and returns when the disk has it.

        Raises:
            ResourceError: the disk refuses (``disk``).
        """
        try:
            numbered = {**record, "seq": self._next}
            self._file.write(json.dumps(numbered, ensure_ascii=False).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
            self._next += 1
            if not os.path.samestat(os.fstat(self._file.fileno()), self.path.stat()):
                raise FileNotFoundError(errno.ENOENT, "it was replaced while the batch ran")
        except OSError as error:
            raise _refused(self.path, error) from error

    def close(self) -> None:
        """Closes the file; lines that did not fit on a full disk are discarded."""
        try:
            self._file.close()
        except OSError:
            return


def journals(folder: Path) -> list[Path]:
    """All journals in an output folder: that of the whole run and those of shards."""
    return sorted(folder.glob("journal*.jsonl"))


def is_unfinished_journal(path: Path) -> bool:
    """Whether a file holds nothing but the beginning of a journal, as a full disk leaves it."""
    with path.open("rb") as file:
        beginning = file.read(1 << 16)
    return b"\n" not in beginning and beginning[: len(_FIRST)] == _FIRST[: len(beginning)]


def read(paths: Iterable[Path]) -> list[Record]:
    """The events of some journals, oldest first, without incomplete lines and lines of other forms.

    Sequence numbers and the order within each file decide, not the clock, which may have been wrong. Lines of
    version 0.1.0 have no numbers: they come first, with times that never decrease within a file.
    """
    found: list[tuple[tuple[int, float], Record]] = []
    for path in paths:
        time = 0.0
        with path.open("rb") as file:
            for line in file:
                record = _record(line)
                if record is None:
                    continue
                number = _sequence(record)
                time = max(time, record["time"])
                found.append(((1, number) if number else (0, time), record))
    return [record for _, record in sorted(found, key=lambda each: each[0])]


def next_sequence(records: Iterable[Record]) -> int:
    """A sequence number larger than that of any record."""
    return 1 + max(map(_sequence, records), default=0)


def written_digests(records: Iterable[Record]) -> dict[str, set[str]]:
    """SHA-256 of all content that batches ever wrote to each file, by its path in the output folder."""
    found: dict[str, set[str]] = {}
    for record in records:
        files = record.get("files")
        if isinstance(files, dict):
            for name, digest in files.items():
                found.setdefault(name, set()).add(str(digest))
    return found


def latest(records: Iterable[Record]) -> dict[Key, CaseResult]:
    """The last result of every case and model; lines that hold no valid result are left out."""
    return {(result.case, result.model): result for result in case_results(records)}


def case_results(records: Iterable[Record]) -> Iterator[CaseResult]:
    """The results of all lines that hold a valid one, those of earlier runs included."""
    for record in records:
        if record.get("event") == "case":
            with suppress(ValueError):
                yield CaseResult.from_json(record)


def starts(records: Iterable[Record]) -> list[BatchStart]:
    """The starts of all runs; lines that hold no valid start are left out."""
    found: list[BatchStart] = []
    for record in records:
        if record.get("event") == "start":
            with suppress(ValueError):
                found.append(BatchStart.from_json(record))
    return found


def _record(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    whole = line.endswith(b"\n") and isinstance(record, dict) and isinstance(record.get("time"), int | float)
    return record if whole else None


def _sequence(record: Record) -> int:
    """The sequence number; 0 if there is none."""
    number = record.get("seq")
    return number if isinstance(number, int) and not isinstance(number, bool) else 0


def cut_off(path: Path) -> None:
    """Removes the bytes after the last line break."""
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        at, tail = end, b""
        while at and b"\n" not in tail:
            at = max(0, at - 4096)
            file.seek(at)
            tail = file.read(4096)
        keep = at + tail.rfind(b"\n") + 1
        if keep < end:
            file.truncate(keep)


def _refused(path: Path, error: OSError) -> ResourceError:
    return ResourceError(
        f"cannot write the journal: {error.strerror or error}",
        where=path,
        remedy="free some space or correct the permissions, then continue with --resume",
        reason="disk",
    )
