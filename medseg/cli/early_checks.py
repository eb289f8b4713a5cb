"""Checks of a command's arguments that need no large import, made before everything else."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from medseg.cli.mask_targets import is_folder
from medseg.errors import UsageError
from medseg.inference.backends import check_known
from medseg.inference.model_files import find
from medseg.io.dicomweb.address import DicomwebAddress, is_address
from medseg.io.formats import is_dicom_output
from medseg.io.output_checks import check_writable
from medseg.io.path_checks import existing

_WITHOUT_FILE = (None, "threshold")
_MANIFESTS = (".csv", ".json", ".yaml", ".yml")


def check_scans(scans: Sequence[Path]) -> None:
    """Refuses a scan that does not exist or must not be read; of an address only the form is checked.

    Raises:
        InputRefused: as :func:`medseg.io.path_checks.existing`.
        UsageError, ResourceError: as :func:`check_address`.
    """
    for scan in scans:
        if is_address(scan):
            check_address(scan)
        else:
            existing(scan)


def check_address(address: Path) -> None:
    """Refuses an address that is not one of DICOMweb, or that holds a password.

    Raises:
        UsageError: as :meth:`medseg.io.dicomweb.address.DicomwebAddress.parse`.
        ResourceError: dicomweb-client is not installed (``missing-extra``).
    """
    from medseg.io.dicomweb.connection import check_installed

    DicomwebAddress.parse(address)
    check_installed()


def check_store(scans: Sequence[Path], output: str | None, form: str | None = None) -> None:
    """Refuses to store masks of scans that are no addresses, or masks that are not DICOM.

    Raises:
        UsageError: one of these (``usage``).
    """
    if not scans or not all(is_address(scan) for scan in scans):
        problem, remedy = "--store needs scans of a DICOMweb server", "give dicomweb:// addresses"
    elif output is not None and not (is_dicom_output(Path(output)) or (form and is_folder(output))):
        problem, remedy = (
            f"--store needs a DICOM mask, not {output}",
            "leave out -o, write -o mask.dcm, or add --format",
        )
    else:
        return
    raise UsageError(problem, where="--store", remedy=remedy, reason="usage")


def check_cases(source: Path) -> None:
    """Refuses a folder or manifest of a batch that does not exist; manifests have their own message.

    Raises:
        UsageError: it does not exist (``no-cases``).
    """
    if is_address(source):
        check_address(source)
        return
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
