"""Running the server: models loaded, a socket opened, a temporary folder that is gone at the end."""

from __future__ import annotations

import asyncio
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from medseg.errors import ResourceError, UsageError
from medseg.serving.settings import ServerSettings
from medseg.system.file_lock import locked
from medseg.system.output_folder import make_output_folder

if TYPE_CHECKING:
    from medseg.serving.service import Service

_LOCK = ".lock"


def check_installed() -> None:
    """Refuses to go on without Starlette, uvicorn and python-multipart.

    Raises:
        ResourceError: one is not installed (``missing-extra``).
    """
    try:
        import python_multipart  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise ResourceError(
            "the server needs Starlette, uvicorn and python-multipart, which are not installed",
            where="medseg serve",
            remedy="pip install 'medseg[serve]'",
            reason="missing-extra",
        ) from None


def serve(settings: ServerSettings, *, on_ready: Callable[[str], None] = lambda url: None) -> None:
    """Serves until the process is interrupted.

    What clients sent is removed then, except labels and scans that they put into the data folder.

    Args:
        settings: How it runs.
        on_ready: Called with the address once the models are loaded and requests are accepted.

    Raises:
        UsageError: no such model, device or data; the address is in use or not this machine's (``address``);
            another server writes to the output folder (``in-use``).
        ModelRefused: a model is damaged.
        ResourceError: a package is missing (``missing-extra``), or a folder cannot be written (``disk``).
    """
    check_installed()
    temporary = Path(tempfile.mkdtemp(prefix="medseg-serve-"))  # its mode is 0700
    try:
        with _opened(settings) as listener:
            output = settings.output_folder
            if output is None:
                _run(settings, temporary, listener, on_ready)
                return
            make_output_folder(output)
            with locked(output / _LOCK, remedy="stop the other server, or give another --output"):
                _run(settings, temporary, listener, on_ready)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def service_of(settings: ServerSettings, temporary: Path) -> Service:
    """What the requests of a server share, with the models loaded.

    Args:
        settings: How the server runs.
        temporary: A folder for it alone.

    Raises:
        UsageError: no such model, device or data.
        ModelRefused: a model is damaged.
    """
    from medseg.serving.access_control import TokenCheck
    from medseg.serving.background_training import BackgroundTraining
    from medseg.serving.data_folder import DataFolder
    from medseg.serving.loaded_models import load_models
    from medseg.serving.next_sample import NextSample
    from medseg.serving.refusals import Redaction
    from medseg.serving.service import Service
    from medseg.serving.submissions import Submissions

    output = settings.output_folder
    data = DataFolder(settings.data, output, temporary)
    order = NextSample(settings.batch)
    models = load_models(settings.models, device=settings.device, engine=settings.engine)
    folders = {temporary: "upload"}
    folders |= {settings.data: "data"} if settings.data is not None else {}
    folders |= {output: "output"} if output is not None else {}
    folders |= {Path.home(): "~", Path(tempfile.gettempdir()): "temporary"}
    return Service(
        models=models,
        data=data,
        submissions=Submissions(output),
        order=order,
        training=BackgroundTraining(output, models, device=settings.device),
        temporary=temporary,
        check=TokenCheck(settings.token, settings.limits.guesses),
        redact=Redaction(folders),
        limits=settings.limits,
    )


def _opened(settings: ServerSettings) -> socket.socket:
    """A socket that is bound to the address."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    try:
        if sys.platform != "win32":  # there it would share the port with another program
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise UsageError(
            f"cannot listen on {settings.host}, port {settings.port}: {error.strerror or error}",
            where="medseg serve",
            remedy="choose another --port, or an address of this machine as --host",
            reason="address",
        ) from error
    return listener


def _run(
    settings: ServerSettings, temporary: Path, listener: socket.socket, on_ready: Callable[[str], None]
) -> None:
    import uvicorn

    from medseg.serving.application import application
    from medseg.serving.http_protocol import protocol

    service = service_of(settings, temporary)
    config = uvicorn.Config(
        application(service, settings.hosts()),
        http=protocol(settings.limits.header_seconds),
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=settings.limits.connections,
        timeout_graceful_shutdown=3,
    )
    try:
        listener.listen()  # who connects from now on is answered
        on_ready(settings.url(listener.getsockname()[1]))
        asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))
    finally:
        service.training.close()
