"""Who may ask the server: by the host asked for, the page that asks, and the token.

Any page in the browser of a user can send requests to this machine, and a name of the page's own can lead
to this address (DNS rebinding). So the host in a request must be the server's, and the origin that of the
host. A token is needed wherever others than this machine's users can connect.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import time
from collections import OrderedDict, deque
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medseg.errors import UsageError
from medseg.serving.limits import Limits
from medseg.serving.refusals import Redaction, answer

AUTHENTICATED = "medseg_authenticated"
"""Key of a request's scope: whether it carries the token, or none is needed."""
BASE = "medseg_base"
"""Key of a request's scope: the address of the server's page as it was asked for, such as ``/TOKEN/``."""
_PUBLIC = ("/auth", "/auth/", "/auth/token")
_HEADERS = (
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
_MINUTE = 60.0
_MOST_ADDRESSES = 4096


class TokenCheck:
    """The token, compared in constant time, and the addresses that have guessed.

    Args:
        token: The token; None if none is needed.
        guesses: Most wrong tokens from an address within a minute; then all of its requests are refused.
    """

    def __init__(self, token: str | None, guesses: int) -> None:
        self.token = token
        self._guesses = guesses
        self._wrong: OrderedDict[str, deque[float]] = OrderedDict()

    def is_right(self, given: str) -> bool:
        """Whether a text is the token."""
        own = hashlib.sha256((self.token or "").encode()).digest()
        return hmac.compare_digest(hashlib.sha256(given.encode()).digest(), own) and self.token is not None

    def check_address(self, address: str) -> None:
        """Refuses an address that has guessed too often.

        Raises:
            UsageError: it has (``token-guesses``).
        """
        times = self._wrong.get(address)
        if times and len(times) >= self._guesses and time.monotonic() - times[0] < _MINUTE:
            raise UsageError(
                "too many wrong tokens from this address",
                remedy="wait a minute, and give the token that the server printed",
                reason="token-guesses",
            )

    def count_wrong(self, address: str) -> None:
        """Remembers a wrong token."""
        self._wrong.setdefault(address, deque(maxlen=self._guesses)).append(time.monotonic())
        self._wrong.move_to_end(address)
        while len(self._wrong) > _MOST_ADDRESSES:
            self._wrong.popitem(last=False)


class AccessControl:
    """An ASGI application that lets only allowed requests through to another one.

    The token is accepted as ``Authorization: Bearer TOKEN`` or as the first part of the path, because 3D
    Slicer downloads scans by an address alone: ``http://server:8000/TOKEN``.

    Args:
        app: The application behind.
        hosts: Names and addresses that the server may be asked by; ``*`` adds every numeric address.
        check: The token.
        redact: What removes paths from errors.
    """

    def __init__(
        self, app: ASGIApp, *, hosts: frozenset[str], check: TokenCheck, redact: Redaction, limits: Limits
    ) -> None:
        self._app, self._hosts, self._check, self._redact = app, hosts, check, redact
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or passes it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = message.get("headers", [])
                # The server's own page has a policy of its own, and two would hold together.
                names = {name for name, _ in own}
                message["headers"] = [*own, *(each for each in _HEADERS if each[0] not in names)]
            await send(message)

        try:
            scope = self._checked(scope)
        except UsageError as error:
            refusal = answer(error, self._redact, retry_seconds=int(_MINUTE))
            await refusal(scope, receive, guarded)
            return
        await self._app(scope, receive, guarded)

    def _checked(self, scope: Scope) -> Scope:
        headers = Headers(scope=scope)
        self._check_host(headers)
        self._check_origin(headers)
        if self._check.token is None:
            return {**scope, AUTHENTICATED: True, BASE: "/"}
        address = (scope.get("client") or ("", 0))[0]
        self._check.check_address(address)
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        first, _, rest = scope["path"].lstrip("/").partition("/")
        if kind.lower() == "bearer" and self._check.is_right(bearer.strip()):
            return {**scope, AUTHENTICATED: True, BASE: "/"}
        if self._check.is_right(first):
            inner = {"path": f"/{rest}", "raw_path": f"/{rest}".encode(), BASE: scope["path"]}
            return {**scope, **inner, AUTHENTICATED: True}
        if scope["path"] in _PUBLIC:
            return {**scope, AUTHENTICATED: False, BASE: "/"}
        self._check.count_wrong(address)
        raise _wrong_token()

    def _check_host(self, headers: Headers) -> None:
        asked = headers.get("host", "")
        name = _host_name(asked)
        if name in self._hosts or ("*" in self._hosts and _is_address(name)):
            return
        raise UsageError(
            f"the request is for host {asked[:80]!r}, a name that this server was not started with",
            remedy="use the address that `medseg serve` printed, or start it with --allow-host NAME",
            reason="foreign-host",
        )

    def _check_origin(self, headers: Headers) -> None:
        origin, host = headers.get("origin"), headers.get("host", "")
        own = origin is None or origin in (f"http://{host}", f"https://{host}")
        if own and headers.get("sec-fetch-site", "none") in ("none", "same-origin"):
            return
        raise UsageError(
            "requests of other pages are refused",
            remedy="use 3D Slicer, the monailabel client, or a page of this server",
            reason="foreign-origin",
        )


def token_answer(request: Request, check: TokenCheck, body: bytes) -> dict[str, str]:
    """The token for who gives it as the password, as MONAI Label's login does.

    Args:
        request: The request, for its address.
        check: The token.
        body: A form with ``username`` and ``password``.

    Raises:
        UsageError: the password is not the token (``token``).
    """
    address = request.client.host if request.client else ""
    given = parse_qs(body.decode(errors="replace")).get("password", [""])[0]
    if not check.is_right(given):
        check.count_wrong(address)
        raise _wrong_token()
    return {"access_token": given, "token_type": "bearer"}


def _wrong_token() -> UsageError:
    return UsageError(
        "the token is missing or wrong",
        remedy="use the address with the token that the server printed, or give the token as the password",
        reason="token",
    )


def _host_name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
