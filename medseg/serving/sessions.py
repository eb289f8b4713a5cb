"""Sessions: scans that a client sends once and has segmented several times; nothing is kept afterwards."""

from __future__ import annotations

import secrets
import shutil
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from medseg.errors import UsageError
from medseg.serving.limits import Limits


@dataclass
class Session:
    """A scan of a client.

    Attributes:
        id: Name of the session, which nobody can guess.
        folder: Temporary folder of its files.
        scan: The file, or the folder of a DICOM series.
        used: When it was last used, by a monotonic clock.
        step: What is being done with the scan, how many steps of it, and of how many; 0 if not known.
    """

    id: str
    folder: Path
    scan: Path
    used: float
    step: tuple[str, int, int] = ("", 0, 0)

    def info(self, life_seconds: float) -> dict[str, object]:
        """The session as a client sees it."""
        return {
            "name": self.id,
            "image": self.scan.suffix.lstrip(".") or "dicom",
            "expiry": int(life_seconds),
            **dict(zip(("stage", "done", "total"), self.step, strict=True)),
        }


class Sessions:
    """The sessions of all clients.

    Args:
        limits: How many there are, and how long they live.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def add(self, folder: Path, scan: Path) -> Session:
        """A new session; the oldest one ends if there are too many.

        Args:
            folder: Temporary folder of its files, which the session removes.
            scan: The scan in it.
        """
        self.expire()
        session = Session(secrets.token_urlsafe(18), folder, scan, time.monotonic())
        self._sessions[session.id] = session
        while len(self._sessions) > self._limits.sessions:
            self.remove(next(iter(self._sessions)))
        return session

    def get(self, name: str) -> Session:
        """A session, which lives on.

        Raises:
            UsageError: there is none of that name (``no-such-session``).
        """
        self.expire()
        session = self._sessions.get(name)
        if session is None:
            raise UsageError("the session has ended", remedy="send the scan again", reason="no-such-session")
        session.used = time.monotonic()
        self._sessions.move_to_end(name)
        return session

    def remove(self, name: str) -> None:
        """Ends a session and removes its files."""
        session = self._sessions.pop(name, None)
        if session is not None:
            shutil.rmtree(session.folder, ignore_errors=True)

    def expire(self) -> None:
        """Ends the sessions that were not used for long."""
        oldest = time.monotonic() - self._limits.session_seconds
        for name in [name for name, session in self._sessions.items() if session.used < oldest]:
            self.remove(name)
