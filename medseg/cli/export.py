"""``medseg export``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from medseg.cli.early_checks import check_model
from medseg.cli.options import Engine
from medseg.cli.output import print_next
from medseg.errors import UsageError
from medseg.system.notices import RESEARCH
from medseg.system.output_folder import check_output_folder

_RUN = "python -m monai.bundle run --config_file configs/inference.json"
ExportForm = Literal["package", "monai-bundle", "torchscript", "torch-export"]


def export(
    source: Annotated[
        str | None,
        typer.Argument(help="Model file, or a name listed by `medseg models`; with --check: a package."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder to write (package or bundle), or file (bare network)."),
    ] = None,
    form: Annotated[
        ExportForm,
        typer.Option(
            "--format",
            help="package: for medseg without torch; monai-bundle: for MONAI; torchscript (.pt) and "
            "torch-export (.pt2): the bare network.",
        ),
    ] = "package",
    openvino: Annotated[
        bool, typer.Option("--openvino", help="Also write the networks in OpenVINO's format (IR).")
    ] = False,
    licence: Annotated[
        str | None,
        typer.Option(
            help="Licence of the weights, such as 'CC BY 4.0'.", show_default="as the model file says"
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Check a package: compare its files with their digests and segment its scan again.",
        ),
    ] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of a package's pipeline.json.")
    ] = False,
    engine: Engine = "auto",
) -> None:
    """Export a model: as a package that runs without torch, as a MONAI bundle, or as a bare network."""
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
    if form != "package" and (check or openvino or (licence is not None and form != "monai-bundle")):
        raise UsageError(
            f"--check, --openvino and --licence are not for --format {form}",
            remedy="leave them out, or export a package",
            reason="usage",
        )
    if output is not None:
        check_output_folder(output.parent)
    check_model(source, engine)
    import medseg

    if output is None:
        found = medseg.check_package(source, engine=engine)
        print(
            f"{source}: all files are as exported; {found.differing_voxels} of {found.labelled_voxels} "
            f"labelled voxels of its scan differ ({found.engine})"
        )
        print_next("segment", "SCAN", "-o", "mask.nii.gz", "--model", source)
        return
    if form == "monai-bundle":
        medseg.export_bundle(source, output, licence=licence)
        print(f"wrote {output}. {RESEARCH}\nnext, with scans in {output / 'data'}: cd {output}; {_RUN}")
        return
    if form != "package":
        print(f"wrote {medseg.export_network(source, output, form=form)}. {RESEARCH}")
        return
    package = medseg.export_model(source, output, engine=engine, openvino=openvino, licence=licence)
    print(f"wrote {output} (pipeline.json sha256 {package.digest[:12]}). {RESEARCH}")
    print_next("segment", "SCAN", "-o", "mask.nii.gz", "--model", output)
