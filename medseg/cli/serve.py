"""``medseg serve``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from medseg.cli.early_checks import check_model
from medseg.cli.options import Device, Engine, model_names
from medseg.system.notices import RESEARCH
from medseg.system.output_folder import check_output_folder


def serve(
    data: Annotated[
        Path | None,
        typer.Argument(
            help="Folder of scans, or a manifest; submitted labels are kept in it.", show_default=False
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Model file, package, or name listed by `medseg models`; may be repeated.",
            show_default="lung_ct_context",
            autocompletion=model_names,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Folder for labels, uploaded scans and trainings.",
            show_default="DATA/medseg-serve",
        ),
    ] = None,
    batch: Annotated[
        Path | None, typer.Option(help="Output folder of medseg batch: its entropies choose the next case.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any but this machine's own needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes any free one.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="MEDSEG_SERVE_TOKEN",
            show_envvar=True,
            help="Token that clients must send. Prefer the variable: other users can see options.",
            show_default="a new one, if the address needs one",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Another host name by which clients may address the server; may be repeated."),
    ] = None,
    max_upload: Annotated[int, typer.Option(min=1, help="Largest upload in MB.")] = 4096,
    device: Device = "auto",
    engine: Engine = "auto",
) -> None:
    """Serve models to 3D Slicer, other MONAI Label clients and browsers; by default on this machine only."""
    if output is not None:
        check_output_folder(output)
    for each in model or ():
        check_model(each)
    from medseg.serving.limits import Limits
    from medseg.serving.server import check_installed

    check_installed()
    from medseg.serving.server import serve as run
    from medseg.serving.settings import ServerSettings

    settings = ServerSettings(
        models=tuple(model or ()),
        data=data,
        output=output,
        batch=batch,
        host=host,
        port=port,
        allowed_hosts=tuple(allow_host or ()),
        token=token,
        device=device,
        engine=engine,
        limits=Limits(upload_bytes=max_upload << 20),
    )
    run(settings, on_ready=_show)


def _show(url: str) -> None:
    print(url, flush=True)
    print(f"Press Ctrl-C to stop. {RESEARCH}", file=sys.stderr, flush=True)
