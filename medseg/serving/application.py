"""The server's pages, as MONAI Label's protocol names them."""

from __future__ import annotations

import asyncio
import os
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from medseg.errors import MedsegError, UsageError
from medseg.serving import datastore_requests as datastore
from medseg.serving import own_page
from medseg.serving.access_control import AUTHENTICATED, AccessControl, token_answer
from medseg.serving.case_queue import in_thread
from medseg.serving.inference_requests import infer
from medseg.serving.next_sample import STRATEGIES
from medseg.serving.refusals import answer
from medseg.serving.service import Service
from medseg.serving.submissions import MANIFEST
from medseg.serving.uploads import body_chunks, json_object
from medseg.serving.zip_archives import is_archive, unpack
from medseg.system.notices import RESEARCH
from medseg.system.own_version import own_version

Handler: TypeAlias = Callable[[Service, Request], Awaitable[Response]]
_CLIENT_GONE = 499
_MOST_LINES = 1000


def application(service: Service, hosts: frozenset[str]) -> ASGIApp:
    """The server as an ASGI application.

    Args:
        service: Models, scans and labels.
        hosts: Names and addresses that the server may be asked by.
    """
    table: list[tuple[str, str, Handler]] = [
        ("GET", "/", own_page.page),
        ("GET", "/page/{name}", own_page.page_file),
        ("GET", "/info/", info),
        ("GET", "/auth/", auth),
        ("POST", "/auth/token", login),
        ("GET", "/auth/token/valid", info),
        ("GET", "/logs/", logs),
        ("POST", "/infer/{model}", infer),
        ("GET", "/datastore/", datastore.datastore),
        ("PUT", "/datastore/", datastore.add_image),
        ("GET", "/datastore/image", datastore.image),
        ("PUT", "/datastore/image", datastore.add_image),
        ("GET", "/datastore/image/info", datastore.image_info),
        ("GET", "/datastore/label", datastore.label),
        ("PUT", "/datastore/label", datastore.add_label),
        ("GET", "/datastore/label/info", datastore.label_info),
        ("POST", "/activelearning/{strategy}", datastore.next_sample),
        ("PUT", "/session/", create_session),
        ("GET", "/session/{session}", get_session),
        ("DELETE", "/session/{session}", end_session),
        ("POST", "/session/{session}/view", own_page.segment_session),
        ("GET", "/session/{session}/view/{name}", own_page.view_file),
        ("GET", "/train/", training_status),
        ("POST", "/train/", start_training),
        ("POST", "/train/{model}", start_training),
        ("DELETE", "/train/", stop_training),
    ]
    routes = [
        Route(alias, _answered(service, handler), methods=[method])
        for method, path, handler in table
        for alias in dict.fromkeys((path, path.rstrip("/") or "/"))
    ]

    async def unknown(request: Request, error: Exception) -> Response:
        wrong = UsageError(
            "there is no such page", remedy="see docs/guides/serve.md for the pages", reason="no-such-page"
        )
        status = error.status_code if isinstance(error, HTTPException) else 500
        return answer(wrong, service.redact, status=status)

    inner = Starlette(routes=routes, exception_handlers={HTTPException: unknown})
    inner.router.redirect_slashes = False
    return AccessControl(
        inner, hosts=hosts, check=service.check, redact=service.redact, limits=service.limits
    )


def _answered(service: Service, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """The handler as an endpoint: every error becomes an answer, every answer a line of the log."""

    async def endpoint(request: Request) -> Response:
        start = time.monotonic()
        try:
            response = await handler(service, request)
        except (ClientDisconnect, ConnectionAbortedError):
            response = Response(status_code=_CLIENT_GONE)
        except asyncio.CancelledError:  # the server ends
            response = Response(status_code=503)
        except Exception as error:
            if not isinstance(error, MedsegError):
                _print_place(error)
            response = answer(error, service.redact, retry_seconds=service.limits.retry_seconds)
        if response.status_code in (408, 413, 415):
            response.headers["Connection"] = "close"  # the rest of the body is not read
        page = request.scope["path"].strip("/").partition("/")[0]
        seconds = time.monotonic() - start
        clock = time.strftime("%H:%M:%S")
        service.log.append(f"{clock} {request.method} /{page} {response.status_code} {seconds:.2f} s")
        return response

    return endpoint


def _print_place(error: Exception) -> None:
    """One line about an unexpected error on stderr: its kind and place; its text may name a scan."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else "?"  # noqa: PTH119
    print(f"medseg serve: {type(error).__name__} in {place}", file=sys.stderr, flush=True)  # noqa: T201


async def info(service: Service, request: Request) -> Response:
    """The models, strategies and scans of the server."""
    await in_thread(service.training.load_result)
    return JSONResponse(
        {
            "name": "medseg",
            "description": f"medseg serve. {RESEARCH}",
            "version": own_version(),
            "labels": service.models.labels(),
            "models": {name: model.info() for name, model in service.models.all().items()},
            "trainers": service.training.trainers(),
            "strategies": {name: {"description": text, "config": {}} for name, text in STRATEGIES.items()},
            "scoring": {},
            "train_stats": service.training.stats(),
            "datastore": datastore.status(service),
        }
    )


async def auth(service: Service, request: Request) -> Response:
    """Whether a client has to log in: yes, if a token is needed that the request does not carry."""
    return JSONResponse({"enabled": not request.scope[AUTHENTICATED]})


async def login(service: Service, request: Request) -> Response:
    """The token for who gives it as the password."""
    chunks = body_chunks(request, service.limits, service.limits.field_bytes)
    return JSONResponse(token_answer(request, service.check, b"".join([part async for part in chunks])))


async def logs(service: Service, request: Request) -> Response:
    """The last requests, without names of scans."""
    given = request.query_params.get("lines", "300")
    count = min(int(given), _MOST_LINES) if given.isdecimal() and int(given) else 300
    return PlainTextResponse("".join(f"{line}\n" for line in list(service.log)[-count:]))


async def create_session(service: Service, request: Request) -> Response:
    """A session with an uploaded scan: a file, the files of a DICOM series, or a zip archive of them."""
    async with service.upload_folder() as folder:
        form = await service.receive(request, folder, dicom=True)
        if not form.files:
            raise UsageError("the form has no file", remedy="send the scan as files", reason="upload-form")
        scan = form.files[0].path if len(form.files) == 1 else folder
        if scan != folder and is_archive(form.files[0]):
            archive = scan
            scan = await service.files.run(lambda: unpack(archive, folder, service.limits))
        kept = folder.rename(folder.with_name(f"{folder.name}-session"))
    scan = kept if scan == folder else kept / scan.name
    session = service.sessions.add(kept, scan)
    return JSONResponse(
        {"session_id": session.id, "session_info": session.info(service.limits.session_seconds)}
    )


async def get_session(service: Service, request: Request) -> Response:
    """A session, if it has not ended."""
    session = service.sessions.get(request.path_params["session"])
    return JSONResponse(session.info(service.limits.session_seconds))


async def end_session(service: Service, request: Request) -> Response:
    """Ends a session and removes its scan."""
    session = service.sessions.get(request.path_params["session"])
    service.sessions.remove(session.id)
    return JSONResponse(session.info(service.limits.session_seconds))


async def training_status(service: Service, request: Request) -> Response:
    """The training in the background."""
    running = request.query_params.get("check_if_running", "").lower() in ("true", "1")
    return _public(service, service.training.status(running=running))


async def start_training(service: Service, request: Request) -> Response:
    """Starts fine-tuning a model on the submitted labels: the named one, or the first that can be."""
    chunks = body_chunks(request, service.limits, service.limits.field_bytes)
    params = json_object(b"".join([part async for part in chunks]))
    names = list(service.training.trainers()) or list(service.models.all())
    name = request.path_params.get("model") or names[0]
    nested = params.get(name)
    if isinstance(nested, dict):
        params = {**params, **nested}
    manifest = None if service.data.output is None else service.data.output / MANIFEST
    return _public(service, await in_thread(lambda: service.training.start(name, manifest, params)))


async def stop_training(service: Service, request: Request) -> Response:
    """Stops the training in the background."""
    return _public(service, await in_thread(service.training.stop))


def _public(service: Service, facts: dict[str, object]) -> Response:
    """Facts about a training without paths of this machine."""
    details = facts.get("details")
    lines = [service.redact(str(line)) for line in details] if isinstance(details, list | tuple) else []
    return JSONResponse({**facts, "details": lines})
