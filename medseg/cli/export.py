"""``medseg export``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from medseg.cli.early_checks import check_model
from medseg.cli.options import Engine
from medseg.errors import UsageError
from medseg.system.notices import RESEARCH


def export(
    source: Annotated[
        str | None, typer.Argument(help="Model file, or name of `medseg models`; with --check: a package.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Package to write, a folder.")] = None,
    openvino: Annotated[
        bool, typer.Option("--openvino", help="Also write the networks in OpenVINO's format, IR.")
    ] = False,
    licence: Annotated[
        str | None, typer.Option(help="Licence of the weights. [default: as the model file says]")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Check a package: its files, and its mask of the scan in it.")
    ] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of a package's pipeline.json.")
    ] = False,
    engine: Engine = "auto",
) -> None:
    """Write a model as a package that runs without torch: its networks, its recipe and a self-test."""
    if schema:
        import medseg

        print(json.dumps(medseg.package_schema(), indent=2))
        return
    if source is None or check == (output is not None):
        raise UsageError(
            "need a model and either -o or --check",
            remedy="medseg export MODEL -o PACKAGE, or medseg export --check PACKAGE",
            reason="usage",
        )
    check_model(source, engine)
    import medseg

    if output is None:
        found = medseg.check_package(source, engine=engine)
        print(
            f"{source}: all files are as exported; {found.differing_voxels} of {found.labelled_voxels} "
            f"labelled voxels of its scan differ ({found.engine})"
        )
        return
    package = medseg.export_model(source, output, engine=engine, openvino=openvino, licence=licence)
    print(
        f"wrote {output} (pipeline.json sha256 {package.digest[:12]}). {RESEARCH}\n"
        f"next: medseg segment SCAN --model {output}"
    )
