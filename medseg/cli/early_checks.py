"""Checks of a command's arguments that need no large import, made before everything else."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from medseg.errors import UsageError
from medseg.inference.backends import check_known
from medseg.inference.model_files import find
from medseg.io.output_checks import check_writable
from medseg.io.path_checks import existing

_WITHOUT_FILE = (None, "threshold")
_MANIFESTS = (".csv", ".json", ".yaml", ".yml")


def check_scans(scans: Sequence[Path]) -> None:
    """Refuses a scan that does not exist or must not be read.

    Raises:
        InputRefused: as :func:`medseg.io.path_checks.existing`.
    """
    for scan in scans:
        existing(scan)


def check_cases(source: Path) -> None:
    """Refuses a folder or manifest of a batch that does not exist; manifests have their own message.

    Raises:
        UsageError: it does not exist (``no-cases``).
    """
    # Not Path.exists, which raises for a name that is too long.
    if not os.path.exists(source) and source.suffix.lower() not in _MANIFESTS:  # noqa: PTH110
        raise UsageError("no such file or folder", where=source, remedy="check the path", reason="no-cases")


def check_mask(mask: Path, form: str | None) -> None:
    """Refuses a mask file that cannot be written, by its suffix, format or folder.

    Raises:
        UsageError, ResourceError: as :func:`medseg.io.check_writable`.
    """
    check_writable(mask, form)


def check_model(name: str | None, engine: str = "auto") -> None:
    """Refuses a model or an engine that does not exist.

    Raises:
        UsageError: no such model (``model-not-found``) or engine (``engine``).
    """
    check_known(engine)
    if name not in _WITHOUT_FILE:
        find(str(name))
