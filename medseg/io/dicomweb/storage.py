"""Storing a mask on a DICOMweb server, in the study of its scan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom

from medseg.errors import MedsegError, ResourceError
from medseg.io.dicomweb.address import DicomwebAddress
from medseg.io.dicomweb.connection import connect, named_errors

_INSTANCE = "00080018"  # SOPInstanceUID


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
    client, session = connect(scan)
    with session:
        problem = _sent(client, data, scan)
        if problem and not _is_there(client, data, scan):
            raise ResourceError(
                f"the server did not store the mask: {problem}",
                where=str(scan),
                remedy="check that this user may store objects there (STOW-RS), and the server's log",
                reason="dicomweb-store",
            )
    return replace(scan, series=str(data.SeriesInstanceUID))


def _sent(client: Any, data: pydicom.Dataset, scan: DicomwebAddress) -> str:
    """Sends a mask; returns why the server did not take it, or an empty text."""
    try:
        with named_errors(scan):
            answer = client.store_instances([data], scan.study)
            failed = answer.get("FailedSOPSequence") or []
            stored = {str(one.ReferencedSOPInstanceUID) for one in answer.get("ReferencedSOPSequence") or []}
            return _code(failed) if failed or (stored and str(data.SOPInstanceUID) not in stored) else ""
    except MedsegError as error:
        if error.reason in ("dicomweb-not-found", "dicomweb-answer"):
            return error.problem
        raise


def _is_there(client: Any, data: pydicom.Dataset, scan: DicomwebAddress) -> bool:
    """Whether the server has the mask already, which is why many servers refuse it (HTTP 409).

    The reason that they give differs: PS3.18 section 10.5.3 leaves it open, and 0x0111 (duplicate) of PS3.7
    is one of several in use. So the server is asked.
    """
    own = str(data.SOPInstanceUID)
    try:
        with named_errors(scan):
            found = client.search_for_instances(
                scan.study, str(data.SeriesInstanceUID), search_filters={"SOPInstanceUID": own}
            )
            return any(own in one.get(_INSTANCE, {}).get("Value", []) for one in found)
    except MedsegError:
        return False


def _code(failed: Any) -> str:
    """PS3.18 table I.2-2: the reason of a failure as a number."""
    number = failed[0].get("FailureReason") if failed else None
    return f"failure reason 0x{int(number):04X}" if number is not None else "without a reason"
