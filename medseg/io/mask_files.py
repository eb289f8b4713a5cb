"""A mask together with its sidecar: written at once, and recognised later as medseg's own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.images.volume import Mask
from medseg.io import check_writable, write_to
from medseg.io.overwrite_guard import foreign_file
from medseg.io.sidecar import read_sidecar, sidecar_path
from medseg.system.atomic_write import replacing

_FILES = "files"
"""Key of a sidecar: SHA-256 of the files of its mask, by name."""


def write_mask(
    mask: Mask, path: str | Path, facts: Mapping[str, Any], *, format: str | None = None
) -> dict[str, Any]:
    """Writes a mask and its sidecar, and returns the content of the sidecar: the facts, and digests.

    Both appear at once, so that a command that is killed leaves no mask that the next one would not
    recognise.

    Args:
        mask: The mask.
        path: Its file; the suffix determines the format.
        facts: Content of the sidecar, see :mod:`medseg.io.sidecar`.
        format: For ``.dcm``: ``dicom-seg`` (the default) or ``rtstruct``.

    Raises:
        UsageError: as for :func:`medseg.write`; or a data file beside the header was not written by medseg
            (``foreign-file``).
        ResourceError: writing fails (``disk``).
    """
    path = Path(path)
    name = check_writable(path, format)
    with replacing(path) as fresh:
        write_to(mask, fresh, name)
        files = {each.name: _digest(each) for each in sorted(fresh.parent.iterdir())}
        for other, digest in files.items():
            place = path.with_name(other)
            is_known = place == path or not place.exists() or _is_recorded(path, place)
            if not is_known and _digest(place) != digest:
                raise foreign_file(place)
        content = {**facts, _FILES: files}
        sidecar_path(fresh).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return content


def is_own_mask(path: Path) -> bool:
    """Whether medseg wrote a mask, and nobody has changed it since, according to its sidecar.

    Sidecars of version 0.1.0 have no digests: they are believed.
    """
    facts = read_sidecar(path)
    return facts is not None and (_FILES not in facts or _is_recorded(path, path))


def _is_recorded(mask: Path, file: Path) -> bool:
    """Whether a file has the content that the sidecar of a mask records for it."""
    recorded = (read_sidecar(mask) or {}).get(_FILES)
    try:
        return isinstance(recorded, dict) and recorded.get(file.name) == _digest(file)
    except OSError:
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
