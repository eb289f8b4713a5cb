"""Connections to a DICOMweb server: credentials of the environment, bounded answers, errors with reasons.

User and password are those of ``MEDSEG_DICOMWEB_USER`` and ``MEDSEG_DICOMWEB_PASSWORD``, or a token is that
of ``MEDSEG_DICOMWEB_TOKEN``; without them requests takes those of a netrc (``NETRC`` or ``~/.netrc``). They
are in no address, so that no message, journal or table can hold them. Certificates are checked by those of
``REQUESTS_CA_BUNDLE`` or of certifi.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from medseg.errors import InputRefused, MedsegError, ResourceError, UsageError
from medseg.io.dicomweb.address import DicomwebAddress
from medseg.io.dicomweb.multipart import BodyCut
from medseg.system.notices import notify
from medseg.system.quiet_libraries import quiet

if TYPE_CHECKING:
    from dicomweb_client.web import DICOMwebClient

_USER, _PASSWORD, _TOKEN = (f"MEDSEG_DICOMWEB_{name}" for name in ("USER", "PASSWORD", "TOKEN"))
CONNECT_SECONDS, READ_SECONDS = 10.0, 60.0
"""Longest time until a connection stands, and longest silence within an answer."""
_LEAST_BYTES_PER_SECOND, _GRACE_SECONDS = 1 << 10, 60.0
MOST_BYTES = 8 << 30
"""Largest answer with images."""
_MOST_JSON_BYTES = 32 << 20


def check_installed() -> None:
    """Refuses to go on without dicomweb-client.

    Raises:
        ResourceError: it is not installed (``missing-extra``).
    """
    from importlib.util import find_spec

    if find_spec("dicomweb_client") is None:
        raise ResourceError(
            "dicomweb:// addresses need dicomweb-client, which is not installed",
            where="dicomweb",
            remedy="pip install 'medseg[dicomweb]'",
            reason="missing-extra",
        )


def mention_unencrypted(address: DicomwebAddress) -> None:
    """Sends a notice if scans and password leave this machine without encryption (``unencrypted``)."""
    if address.is_readable_on_the_way:
        notify(
            "unencrypted",
            "the connection is not encrypted: scans, and a password or token, can be read on the way",
            path=f"dicomweb+http://{address.host}",
            remedy="use dicomweb:// (HTTPS), or a tunnel to 127.0.0.1",
        )


def connect(address: DicomwebAddress) -> tuple[DICOMwebClient, Any]:
    """A client of the address's service, and the session of ``requests`` that it uses.

    Raises:
        ResourceError: dicomweb-client is not installed (``missing-extra``).
        UsageError: only a user or only a password is set (``dicomweb-credentials``).
    """
    check_installed()
    import requests
    from dicomweb_client.web import DICOMwebClient
    from requests.adapters import HTTPAdapter

    class BoundedAdapter(HTTPAdapter):  # type: ignore[misc]  # requests has no types
        """Answers that end when they are too large or too slow."""

        def build_response(self, req: Any, resp: Any) -> Any:
            response = super().build_response(req, resp)
            is_json = "json" in req.headers.get("Accept", "") or req.method != "GET"
            response.raw = _BoundedBody(response.raw, _MOST_JSON_BYTES if is_json else MOST_BYTES, address)
            return response

    session = requests.Session()
    session.mount("https://", BoundedAdapter())
    session.mount("http://", BoundedAdapter())
    auth = _credentials()
    if auth is not None:
        session.auth = auth
    client = DICOMwebClient(address.service, session=session, timeout=(CONNECT_SECONDS, READ_SECONDS))
    client.set_http_retry_params(retry=False)
    return client, session


@contextmanager
def named_errors(address: DicomwebAddress) -> Iterator[None]:
    """Errors of the block, of ``requests`` and of answers that are none, become errors of medseg.

    Raises:
        InputRefused: the server has no such study or series (``dicomweb-not-found``).
        ResourceError: it refuses these credentials (``dicomweb-unauthorized``), cannot be reached
            (``dicomweb-unreachable``), is silent (``dicomweb-timeout``), breaks off
            (``dicomweb-interrupted``), has a certificate that is not trusted (``dicomweb-certificate``), or
            answers with an error or with something else than DICOMweb (``dicomweb-answer``).
    """
    from requests.exceptions import RequestException

    try:
        with quiet("retrying", "dicomweb_client", "urllib3", "requests"):
            yield
    except MedsegError:
        raise
    except BodyCut:
        raise _interrupted(address) from None
    except RequestException as error:
        raise _named(error, address) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # what dicomweb-client cannot parse
        raise _no_dicomweb(f"its answer cannot be read ({type(error).__name__})", address) from None


def _credentials() -> Any:
    """What signs the requests; None leaves that to a netrc."""
    from requests.auth import AuthBase, HTTPBasicAuth

    class Bearer(AuthBase):  # type: ignore[misc]  # requests has no types
        def __call__(self, request: Any) -> Any:
            request.headers["Authorization"] = f"Bearer {token}"
            return request

    user, password, token = (os.environ.get(name, "") for name in (_USER, _PASSWORD, _TOKEN))
    if token:
        return Bearer()
    if bool(user) != bool(password):
        raise UsageError(
            "only one of user name and password is set",
            where=f"{_USER}, {_PASSWORD}",
            remedy="set both, or neither to use a netrc",
            reason="dicomweb-credentials",
        )
    return HTTPBasicAuth(user.encode(), password.encode()) if user else None


class _BoundedBody:
    """The body of an answer, which may not be too large or too slow."""

    def __init__(self, raw: Any, most: int, address: DicomwebAddress) -> None:
        self._raw, self._most, self._address = raw, most, address

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def stream(self, amt: int, decode_content: bool | None = None) -> Iterator[bytes]:
        """The body in pieces, as ``requests`` asks for it."""
        received, start = 0, time.monotonic()
        for piece in self._raw.stream(amt, decode_content=decode_content):
            received += len(piece)
            if received > self._most:
                raise InputRefused(
                    f"the server sends more than {self._most >> 20} MB",
                    where=str(self._address),
                    remedy="if the series really is that large, download it yourself",
                    reason="dicomweb-size",
                )
            seconds = time.monotonic() - start
            if seconds > _GRACE_SECONDS and received < _LEAST_BYTES_PER_SECOND * seconds:
                raise _silent(self._address)
            yield piece


def _named(error: Any, address: DicomwebAddress) -> MedsegError:
    """The error of medseg for one of requests; its text may hold headers, so it is not quoted."""
    from requests import exceptions as kinds
    from urllib3.exceptions import ProtocolError, ReadTimeoutError

    cause = error.args[0] if error.args else None
    if isinstance(error, kinds.HTTPError) and error.response is not None:
        return _refused(error.response.status_code, address)
    if isinstance(error, kinds.Timeout) or isinstance(cause, ReadTimeoutError):
        return _silent(address)
    if isinstance(error, kinds.SSLError):
        return ResourceError(
            "the certificate of the server is not trusted, or it does not speak TLS",
            where=str(address),
            remedy="set REQUESTS_CA_BUNDLE to the hospital's certificates; dicomweb+http:// is without TLS",
            reason="dicomweb-certificate",
        )
    if isinstance(error, kinds.ChunkedEncodingError) or isinstance(cause, ProtocolError):
        return _interrupted(address)
    if isinstance(error, kinds.ConnectionError):
        return ResourceError(
            "the server cannot be reached",
            where=str(address),
            remedy="check host and port, and whether the server runs; then try again",
            reason="dicomweb-unreachable",
        )
    return _no_dicomweb(f"its answer cannot be used ({type(error).__name__})", address)


def _refused(status: int, address: DicomwebAddress) -> MedsegError:
    if status in (401, 403):
        return ResourceError(
            f"the server does not accept these credentials, or none were given (HTTP {status})",
            where=str(address),
            remedy=f"set {_USER} and {_PASSWORD}, or {_TOKEN}, or add the host to a netrc",
            reason="dicomweb-unauthorized",
        )
    if status == 404:
        return not_found(address)
    return _no_dicomweb(f"it answers with HTTP {status}", address)


def not_found(address: DicomwebAddress) -> InputRefused:
    """The refusal of an address of nothing (``dicomweb-not-found``)."""
    return InputRefused(
        "the server has no such series" if address.series else "the server has no such study",
        where=str(address),
        remedy="check the UIDs, and the path of the service before /studies",
        reason="dicomweb-not-found",
    )


def _interrupted(address: DicomwebAddress) -> ResourceError:
    return ResourceError(
        "the server broke off in the middle of an answer",
        where=str(address),
        remedy="try again; a batch continues with --resume",
        reason="dicomweb-interrupted",
    )


def _silent(address: DicomwebAddress) -> ResourceError:
    return ResourceError(
        "the server answers too slowly or not at all",
        where=str(address),
        remedy="try again later; a batch continues with --resume",
        reason="dicomweb-timeout",
    )


def _no_dicomweb(problem: str, address: DicomwebAddress) -> ResourceError:
    return ResourceError(
        f"the server does not answer as DICOMweb prescribes: {problem}",
        where=str(address),
        remedy="check the path of the service before /studies, and the server's log",
        reason="dicomweb-answer",
    )
