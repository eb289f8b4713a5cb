"""What one client may use of the server: sizes, times and numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds that hold for every request.

    Attributes:
        upload_bytes: Largest body of a request with files.
        field_bytes: Largest body of a request without files, and largest text field of a form.
        files: Most files of one request.
        uploads: Most requests with files that are received at a time.
        idle_seconds: Longest pause within a body; also the time before the rate is checked.
        slowest_bytes_per_second: Lowest mean rate of a body.
        header_seconds: Longest time until the headers of a request are complete.
        connections: Most connections at a time.
        waiting: Most cases that wait for the device while one is segmented.
        retry_seconds: When a client should ask again if the server is busy.
        guesses: Most wrong tokens from one address within a minute.
        sessions: Most sessions at a time; the oldest one ends first.
        session_seconds: Life of a session after its last use.
    """

    upload_bytes: int = 4 << 30
    field_bytes: int = 1 << 20
    files: int = 4096
    uploads: int = 4
    idle_seconds: float = 20.0
    slowest_bytes_per_second: int = 16 << 10
    header_seconds: float = 20.0
    connections: int = 512
    waiting: int = 8
    retry_seconds: int = 10
    guesses: int = 20
    sessions: int = 32
    session_seconds: float = 3600.0
