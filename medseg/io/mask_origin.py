"""The model that made a mask file, as its sidecar or the journal of a batch says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from medseg.io.mask_files import is_own_mask
from medseg.io.sidecar import read_sidecar

_JOURNALS = "journal*.jsonl"
_FACTS = ("recipe", "model_sha256", "engine")


def mask_origin(path: Path) -> dict[str, str]:
    """Name (``recipe``), ``model_sha256`` and ``engine`` of the model that made a mask file.

    Empty if that is not recorded, or if the file was changed since. Sidecars of version 0.1.0 have no
    digest of the mask: they are believed.

    Args:
        path: The mask, with a sidecar or in the output folder of a batch.
    """
    facts = read_sidecar(path)
    if facts is not None:
        known = is_own_mask(path) and all(name in facts for name in _FACTS)
        return {name: str(facts[name]) for name in _FACTS} if known else {}
    found: dict[str, str] = {}
    # A batch of several models has a folder for each of them.
    for folder in (path.parent.parent, path.parent.parent.parent):
        for journal in sorted(folder.glob(_JOURNALS)):
            found = _journaled(journal, path.relative_to(folder).as_posix(), path) or found
    return found


def _journaled(journal: Path, name: str, path: Path) -> dict[str, str]:
    """The model of the last record of a journal that has this file with its present content."""
    found: dict[str, str] = {}
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        with journal.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                record = _record(line) if digest in line else {}
                files = record.get("files")
                if isinstance(files, dict) and files.get(name) == digest:
                    model = record.get("model", "")
                    found = {_FACTS[0]: str(model)} | {key: str(record.get(key, "")) for key in _FACTS[1:]}
    except OSError:
        return {}
    return found


def _record(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}
