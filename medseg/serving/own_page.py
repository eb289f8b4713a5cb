"""The server's own page: a scan is dropped, segmented, and shown with its mask; all of it comes from here."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import AbstractContextManager, ExitStack
from functools import cache
from importlib import resources
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response

from medseg.errors import ResourceError, UsageError
from medseg.serving.access_control import BASE
from medseg.serving.loaded_models import LoadedModel, result_file, segmented_with_scan
from medseg.serving.service import Service
from medseg.serving.sessions import Session
from medseg.system.progress import steps_shown
from medseg.visualization.viewer.niivue_bundle import bundle
from medseg.visualization.viewer.scene import scene
from medseg.visualization.viewer.server import PAGE

MASK = "mask.nii.gz"
_VIEW = "view"
"""Folder of a session with what the viewer loads."""
_KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".json": "application/json"}

_SAME = "default-src 'none'; base-uri 'none'; form-action 'none'; "
_PAGE_POLICY = _SAME + (
    "script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; frame-src 'self'; "
    "frame-ancestors 'none'"
)
# NiiVue contains WebAssembly and inline styles; everything else comes from this server only.
_VIEWER_POLICY = _SAME + (
    "script-src 'self' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self' data: blob:; worker-src 'self' blob:; font-src 'self' data:; frame-ancestors 'self'"
)


async def page(service: Service, request: Request) -> Response:
    """The page; its address ends with a slash, so that what it loads has the token in its address as well."""
    base: str = request.scope[BASE]
    if base and not base.endswith("/"):
        return RedirectResponse(f"{base}/", 307)
    return _text("index.html", _own("index.html"), _PAGE_POLICY)


async def page_file(service: Service, request: Request) -> Response:
    """A file that the page loads.

    Raises:
        UsageError: there is none of that name (``no-such-page``).
    """
    name = request.path_params["name"]
    if name not in ("app.js", "app.css"):
        raise _no_page()
    return _text(name, _own(name), _PAGE_POLICY)


async def segment_session(service: Service, request: Request) -> Response:
    """Segments the scan of a session with the model that ``model`` names, for the viewer and the download.

    Raises:
        UsageError: no such session or model.
        InputRefused: the scan cannot be read or trusted.
        ResourceError: the queue is full (``server-busy``).
    """
    session = service.sessions.get(request.path_params["session"])
    model = service.models.named(request.query_params.get("model") or next(iter(service.models.all())))
    service.cases.check()
    facts = await service.cases.run(lambda: _segmented(session, model), is_gone=request.is_disconnected)
    facts["warnings"] = [service.redact(str(text)) for text in facts["warnings"]]  # type: ignore[attr-defined]
    return JSONResponse(facts)


async def view_file(service: Service, request: Request) -> Response:
    """A file of the viewer of a session, or the mask.

    Raises:
        UsageError: no such session (``no-such-session``), or file (``no-such-page``).
    """
    session, name = service.sessions.get(request.path_params["session"]), request.path_params["name"]
    if name in PAGE:
        return _text(name, _viewers(name), _VIEWER_POLICY)
    if name == "niivue.js":
        return _text(name, bundle(), _VIEWER_POLICY)
    folder = session.folder / _VIEW
    if not folder.is_dir() or name not in [path.name for path in folder.iterdir()]:
        raise _no_page()
    return FileResponse(folder / name, filename=MASK if name == MASK else None)


def _segmented(session: Session, model: LoadedModel) -> dict[str, object]:
    """What the page shows of the result; what the viewer loads is written to the session's folder."""

    def phase(name: str) -> AbstractContextManager[None]:
        def advance(done: int, total: int, text: str = "", /) -> None:
            session.step = (f"{name} {text}".strip(), done, total)

        return steps_shown(advance)

    session.step = ("reading the scan", 0, 0)
    with ExitStack() as stack:
        stack.callback(setattr, session, "step", ("", 0, 0))
        result, scan = segmented_with_scan(model, session.scan, phase)
        session.step = ("preparing the viewer", 0, 0)
        fresh = Path(tempfile.mkdtemp(dir=session.folder))
        stack.callback(shutil.rmtree, fresh, ignore_errors=True)
        result_file(result.mask, fresh, MASK)
        facts: dict[str, object] = {**result.params(), "viewer": True}
        try:
            bundle()
            for name, content in scene(scan, [(model.name, result.mask)]).files.items():
                (fresh / name).write_bytes(content)
        except ResourceError as error:
            facts |= {"viewer": False, "no_viewer": f"{error.problem}: {error.remedy}"}
        shutil.rmtree(session.folder / _VIEW, ignore_errors=True)
        fresh.rename(session.folder / _VIEW)
    return facts


@cache
def _own(name: str) -> bytes:
    return resources.files("medseg.serving").joinpath("page", name).read_bytes()


@cache
def _viewers(name: str) -> bytes:
    return resources.files("medseg.visualization.viewer").joinpath(name).read_bytes()


def _text(name: str, content: bytes, policy: str) -> Response:
    kind = _KINDS[Path(name).suffix]
    return Response(content, media_type=kind, headers={"Content-Security-Policy": policy})


def _no_page() -> UsageError:
    return UsageError("there is no such page", remedy="open the address of the server", reason="no-such-page")
