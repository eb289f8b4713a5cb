"""Digests of files that are about to be moved into place.

If a batch is killed, or the disk is full, after a mask was moved and before its result is in the journal, the
next run recognises the mask by these digests.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from medseg.batch_processing.journal import Key
from medseg.inference.case_result import CaseResult

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
    """The digests noted by all runs that ended in an output folder without recording their results."""
    found: dict[str, str] = {}
    for path in folder.glob(f"{SCRATCH}*/{_FOLDER}/*.json"):
        found |= _digests(path)
    return found


def clear_scratch(scratch: Path, folder: Path, recorded: Mapping[Key, CaseResult]) -> None:
    """Removes a scratch folder, except for the digests of moved files that no recorded result has.

    Args:
        scratch: The scratch folder of a run that has ended.
        folder: The output folder.
        recorded: All results in the journal.
    """
    known = {(name, value) for result in recorded.values() for name, value in result.files.items()}
    with contextlib.suppress(OSError):
        for path in scratch.iterdir():
            if path.name != _FOLDER:
                shutil.rmtree(path, ignore_errors=True)
        for path in (scratch / _FOLDER).glob("*.json"):
            moved = {(name, value) for name, value in _digests(path).items() if (folder / name).exists()}
            if moved <= known:
                path.unlink()
        (scratch / _FOLDER).rmdir()  # refused if a file is left
    with contextlib.suppress(OSError):
        scratch.rmdir()


def _digests(path: Path) -> dict[str, str]:
    try:
        digests = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # cut off: then the files were not moved yet
        return {}
    return {str(name): str(value) for name, value in digests.items()} if isinstance(digests, dict) else {}
