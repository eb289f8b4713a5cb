"""The viewer's server: on this machine only, for who knows the token, and for the scene's files only."""

from __future__ import annotations

import hmac
import secrets
import sys
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from socket import socket

from medseg.visualization.viewer.niivue_bundle import bundle
from medseg.visualization.viewer.scene import Scene

_HOST = "127.0.0.1"
# NiiVue contains WebAssembly and inline styles; everything else comes from this server only.
_POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "font-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE = ("page.html", "page.css", "page.js", "contours.js", "orientation_letters.js")
"""Files of the page that do not depend on the scene."""
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".webp": "image/webp",
    ".nii": "application/octet-stream",
}


class Server(ThreadingHTTPServer):
    """Serves a scene on 127.0.0.1.

    Attributes:
        url: Where the viewer is, with the token that every request needs.

    Args:
        scene: What may be asked for.
        port: 0 for any that is free.
    """

    daemon_threads = True

    def __init__(self, scene: Scene, *, port: int = 0) -> None:
        page = {name: _resource(name) for name in PAGE}
        self.files: Mapping[str, bytes] = {**scene.files, **page, "niivue.js": bundle()}
        self.token = secrets.token_urlsafe(24)
        super().__init__((_HOST, port), _Handler)
        self.own = {f"{_HOST}:{self.server_port}", f"localhost:{self.server_port}"}
        self.url = f"http://{_HOST}:{self.server_port}/{self.token}/page.html"

    def handle_error(self, request: socket | tuple[bytes, socket], client_address: object) -> None:
        """Says nothing of a page that was closed while it was loading; other errors are shown as usual."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "medseg", ""
    timeout = 60

    def do_GET(self) -> None:
        _, _, rest = self.path.partition("/")
        token, _, name = rest.partition("/")
        # Another page may send requests here, by a name of its own that leads to this address.
        asked = self.headers.get("Host", "")
        origin = self.headers.get("Origin")
        if asked not in self.server.own or (origin and origin.removeprefix("http://") not in self.server.own):
            self._refuse(HTTPStatus.FORBIDDEN)
        elif (
            not hmac.compare_digest(token.encode(), self.server.token.encode())
            or name not in self.server.files
        ):
            self._refuse(HTTPStatus.NOT_FOUND)
        else:
            self._answer(HTTPStatus.OK, self.server.files[name], _KINDS["." + name.rpartition(".")[2]])

    def _refuse(self, status: HTTPStatus) -> None:
        self._answer(status, status.phrase.encode(), "text/plain")

    def _answer(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(content))),
            ("Content-Security-Policy", _POLICY),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cache-Control", "no-store"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing: paths have the token in them."""


def _resource(name: str) -> bytes:
    return resources.files("medseg.visualization.viewer").joinpath(name).read_bytes()
