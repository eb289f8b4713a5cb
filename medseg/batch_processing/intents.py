"""Digests of files that are about to be moved into place.

If a batch is killed after a mask was moved and before its result is in the journal, the next run recognises
the mask by these digests.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

SCRATCH = ".scratch"
"""Name of the scratch folder in the output folder; those of shards begin with it."""

_FOLDER = "intents"


def note_intent(scratch: Path, case: str, model: str, digests: Mapping[str, str]) -> None:
    """Writes the digests of a case's files, by their paths in the output folder, into the scratch folder."""
    folder = scratch / _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(f"{case}\0{model}".encode()).hexdigest()[:16]
    (folder / f"{name}.json").write_text(json.dumps(dict(digests)), encoding="utf-8")


def read_intents(folder: Path) -> dict[str, str]:
    """The digests noted by all runs that were killed in an output folder."""
    found: dict[str, str] = {}
    for path in folder.glob(f"{SCRATCH}*/{_FOLDER}/*.json"):
        try:
            digests = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # cut off: then the files were not moved yet
            continue
        if isinstance(digests, dict):
            found |= {str(name): str(value) for name, value in digests.items()}
    return found
