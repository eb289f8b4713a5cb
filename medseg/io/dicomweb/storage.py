"""Storing a mask on a DICOMweb server, in the study of its scan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom

from medseg.errors import MedsegError, ResourceError
from medseg.io.dicomweb.address import DicomwebAddress
from medseg.io.dicomweb.connection import connect, named_errors


def store(path: Path, scan: DicomwebAddress) -> DicomwebAddress:
    """Stores a DICOM SEG or RTSTRUCT in the study of its scan, and returns the address of its series.

    UIDs of masks follow from their content: the same mask is stored once, however often it is sent.

    Args:
        path: The DICOM file.
        scan: The series that was segmented.

    Raises:
        ResourceError: the server does not take the object (``dicomweb-store``).

    Other errors are those of :func:`medseg.io.dicomweb.connection.named_errors`.
    """
    data = pydicom.dcmread(path)
    place = replace(scan, series=str(data.SeriesInstanceUID))
    client, session = connect(scan)
    try:
        with session, named_errors(scan):
            answer = client.store_instances([data], scan.study)
            failed = answer.get("FailedSOPSequence") or []
            stored = {str(one.ReferencedSOPInstanceUID) for one in answer.get("ReferencedSOPSequence") or []}
            if failed or (stored and str(data.SOPInstanceUID) not in stored):
                raise _not_stored(_code(failed), scan)
    except MedsegError as error:
        if error.reason in ("dicomweb-not-found", "dicomweb-answer"):
            raise _not_stored(error.problem, scan) from None
        raise
    return place


def _code(failed: Any) -> str:
    """PS3.18 table I.2-2: the reason of a failure as a number."""
    number = failed[0].get("FailureReason") if failed else None
    return f"failure reason 0x{int(number):04X}" if number is not None else "without a reason"


def _not_stored(problem: str, scan: DicomwebAddress) -> ResourceError:
    return ResourceError(
        f"the server did not store the mask: {problem}",
        where=str(scan),
        remedy="check that this user may store objects there (STOW-RS), and the server's log",
        reason="dicomweb-store",
    )
