"""Settings of a server that a user chooses, checked together."""

from __future__ import annotations

import secrets
import socket
from dataclasses import dataclass, field
from pathlib import Path

from medseg.errors import UsageError
from medseg.serving.limits import Limits

LOOPBACK = ("127.0.0.1", "localhost", "::1")
OUTPUT = "medseg-serve"
"""Folder within a data folder for what the server writes: uploaded scans, labels, trainings."""
_ALL = ("0.0.0.0", "::")
_SHORTEST_TOKEN = 16
_TOKEN_BYTES = 24


@dataclass(frozen=True)
class ServerSettings:
    """How a server runs.

    Attributes:
        models: Model files or names; the default model if empty.
        data: Folder or manifest of scans; None for none.
        output: Folder for labels, uploaded scans and trainings; None: ``medseg-serve`` in the data folder.
        batch: Output folder of ``medseg batch`` whose entropies order the cases.
        host: Address to listen on.
        port: Port; 0 for any that is free.
        allowed_hosts: Further names that the server may be asked by.
        token: The token; None: none on this machine's own address, and a new one elsewhere.
        device: Device of the networks.
        engine: Engine of the networks.
        limits: What one client may use.

    Raises:
        UsageError: the token is too short, or cannot be a part of an address (``weak-token``).
    """

    models: tuple[str, ...] = ()
    data: Path | None = None
    output: Path | None = None
    batch: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    allowed_hosts: tuple[str, ...] = ()
    token: str | None = None
    device: str = "auto"
    engine: str = "auto"
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        token = self.token
        if token is not None and (len(token) < _SHORTEST_TOKEN or not _is_plain(token)):
            raise UsageError(
                f"the token is not at least {_SHORTEST_TOKEN} letters, digits, '-' and '_'",
                where="MEDSEG_SERVE_TOKEN",
                remedy="leave it out, and a good one is made",
                reason="weak-token",
            )
        if token is None and self.host not in LOOPBACK:
            object.__setattr__(self, "token", secrets.token_urlsafe(_TOKEN_BYTES))

    @property
    def output_folder(self) -> Path | None:
        """Folder for what the server writes; None if nothing is kept."""
        if self.output is not None or self.data is None:
            return self.output
        return (self.data if self.data.is_dir() else self.data.parent) / OUTPUT

    def hosts(self) -> frozenset[str]:
        """Names that the server may be asked by; ``*`` stands for every numeric address.

        A page of somebody else can make its own name lead here, but not a number.
        """
        names = {name.lower() for name in (*LOOPBACK, self.host, *self.allowed_hosts)} - set(_ALL)
        if self.host in _ALL:
            names |= {"*", socket.gethostname().lower()}
        return frozenset(names)

    def url(self, port: int) -> str:
        """The address to give to 3D Slicer, with the token if one is needed."""
        host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(self.host, self.host)
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{port}" + (f"/{self.token}" if self.token else "")


def _is_plain(text: str) -> bool:
    return text.isascii() and all(letter.isalnum() or letter in "-_" for letter in text)
