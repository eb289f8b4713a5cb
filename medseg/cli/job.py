"""``medseg job``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from medseg.errors import UsageError
from medseg.system.notices import RESEARCH
from medseg.system.output_folder import check_output_folder


def job(
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="[IN]",
            help="Folder with DICOM series; if left out, the variable MERCURE_IN_DIR names it.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Argument(
            metavar="[OUT]", help="Existing folder for the results; if left out, MERCURE_OUT_DIR names it."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Model file or name, instead of the model that IN/task.json names.",
            show_default="lung_ct_context",
        ),
    ] = None,
) -> None:
    """Segment every DICOM series in a folder, as a container job: writes DICOM masks and result.json.

    Exit code 1: a series failed; result.json says why.
    """
    given = {
        name: path or (Path(folder) if (folder := os.environ.get(name)) else None)
        for name, path in (("MERCURE_IN_DIR", source), ("MERCURE_OUT_DIR", output))
    }
    folders = [path for path in given.values() if path is not None]
    if len(folders) < len(given):
        missing = [name for name, path in given.items() if path is None]
        raise UsageError(
            f"no folder was given, and {' and '.join(missing)} is not set",
            remedy="medseg job IN OUT",
            reason="usage",
        )
    check_output_folder(folders[1])
    from dataclasses import replace

    from medseg.batch_processing.container_job import RESULT, JobSettings, run_job

    task = folders[0] / "task.json"
    settings = JobSettings.read(task) if task.is_file() else JobSettings()
    made = run_job(*folders, settings=settings if model is None else replace(settings, model=model))
    print(made["__mercure_notification"]["text"])
    for each in made["series"]:
        if each["status"] == "failed":
            name = each["series_uid"] or "a series without UID"
            print(f"{name}: {each['reason']}: {each['message']}", file=sys.stderr)
    print(f"wrote {folders[1] / RESULT}. {RESEARCH}", file=sys.stderr)
    if made["failed"]:
        raise typer.Exit(1)
