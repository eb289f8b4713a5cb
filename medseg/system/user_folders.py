"""Where medseg keeps what can be made or brought again."""

from __future__ import annotations

import os
from pathlib import Path


def cache() -> Path:
    """``medseg`` in XDG_CACHE_HOME, by default in ``~/.cache``; it need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "medseg"
