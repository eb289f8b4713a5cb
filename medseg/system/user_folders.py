"""The user's folders, such as the cache for files that can be made or downloaded again."""

from __future__ import annotations

import os
from pathlib import Path


def cache() -> Path:
    """The cache folder: ``medseg`` in XDG_CACHE_HOME, by default in ``~/.cache``; it may not exist yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "medseg"
