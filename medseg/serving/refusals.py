"""Errors as answers of the server: JSON with the reason and the remedy, without paths of this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from starlette.responses import JSONResponse

from medseg.errors import InputRefused, MedsegError, ModelRefused, ResourceError
from medseg.system.error_conversion import as_medseg_error

_STATUS = {
    "no-such-image": 404,
    "not-labelled": 404,
    "no-such-session": 404,
    "no-such-page": 404,
    "model-not-found": 404,
    "not-training": 404,
    "token": 401,
    "foreign-host": 403,
    "foreign-origin": 403,
    "token-guesses": 429,
    "image-exists": 409,
    "training-runs": 429,
    "upload-size": 413,
    "upload-slow": 408,
    "upload-format": 415,
    "server-busy": 503,
}
"""HTTP status of a reason code; others have that of their class, and 400 if it has none."""
_OF_CLASSES: tuple[tuple[type[MedsegError], int], ...] = (
    (InputRefused, 422),
    (ModelRefused, 422),
    (ResourceError, 507),
)


class Redaction:
    """Replaces the paths of folders in texts for clients.

    Args:
        folders: The name to write for each folder, such as ``{Path("/tmp/x"): "upload"}``.
    """

    def __init__(self, folders: Mapping[Path, str]) -> None:
        texts = {
            str(form): name
            for path, name in folders.items()
            if len(path.parts) > 1
            for form in (path, path.resolve())
        }
        self._texts = sorted(texts.items(), key=lambda item: -len(item[0]))

    def __call__(self, text: str) -> str:
        """The text with the names instead of the paths."""
        for path, name in self._texts:
            text = text.replace(path, name)
        return text


def status_of(error: MedsegError) -> int:
    """The HTTP status of an error."""
    if error.reason in _STATUS:
        return _STATUS[error.reason]
    if error.reason == "unexpected":
        return 500
    return next((status for kind, status in _OF_CLASSES if isinstance(error, kind)), 400)


def answer(
    error: Exception, redact: Redaction, *, retry_seconds: int = 0, status: int | None = None
) -> JSONResponse:
    """The answer to a request that fails: ``detail``, ``reason`` and ``remedy``.

    Args:
        error: Any error; one that is not medseg's becomes ``unexpected``, without its text.
        redact: What removes paths from the texts.
        retry_seconds: Value of the header ``Retry-After`` of answers that say to come back.
        status: HTTP status, if it is not that of the reason.
    """
    known = as_medseg_error(error)
    problem = "the server failed unexpectedly" if known.reason == "unexpected" else known.problem
    body = {"detail": redact(problem), "reason": known.reason}
    if known.remedy:
        body["remedy"] = redact(known.remedy)
    status = status_of(known) if status is None else status
    headers = {"Retry-After": str(retry_seconds)} if status in (429, 503) and retry_seconds else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body, status, headers)
