"""``medseg plan``."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from medseg.cli.options import DataRoot, Device
from medseg.errors import UsageError
from medseg.system.atomic_write import check_folder

_UNITS = {"g": 1.0, "m": 1 / 1024}


def plan(
    source: Annotated[
        Path, typer.Argument(help="Folder of scans and labels, or a manifest (CSV, JSON or YAML).")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Recipe to write (.yaml).")],
    like: Annotated[
        Literal["nnunet", "nnunet-resenc-m", "nnunet-resenc-l", "nnunet-resenc-xl"] | None,
        typer.Option(help="Plan like this planner of nnU-Net.", show_default="medseg's own plan"),
    ] = None,
    configuration: Annotated[
        Literal["2d", "3d_fullres", "3d_lowres"] | None,
        typer.Option(
            help="With --like: nnU-Net's configuration.", show_default="3d_fullres, or 2d for flat data"
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            help="Memory that training may use, such as 8G or 500M.",
            show_default="half of the free memory, 80 % on a GPU",
        ),
    ] = None,
    modality: Annotated[
        Literal["CT", "MR", "picture"] | None,
        typer.Option(help="Modality of the images, if it cannot be told from their names and intensities."),
    ] = None,
    data_root: DataRoot = None,
    device: Device = "auto",
    measure: Annotated[
        bool,
        typer.Option(
            "--measure/--no-measure",
            help="Time three training steps and forecast how long the training takes.",
        ),
    ] = True,
) -> None:
    """Inspect the data and the machine, and write a complete recipe with a reason for each number."""
    check_folder(output)
    from medseg.planning.planner import PlanOptions, check_plan_outputs, describe_timing
    from medseg.planning.planner import plan as make_plan

    recipe, _, cases = check_plan_outputs(output)
    options = PlanOptions(like, configuration, gigabytes(memory), modality, device, measure)
    made = make_plan(
        source, options, name=output.stem, root=data_root, made=output.with_name(f"{output.stem}_labels")
    )
    written = made.write(output)
    if made.timing is not None:
        train = sum(case.split == "train" for case in (made.manifest.cases if made.manifest else ())) or len(
            made.fingerprint.cases
        )
        print(describe_timing(made.timing, made.recipe, train), file=sys.stderr)
    for path in written:
        print(f"wrote {path}", file=sys.stderr)
    print(f"medseg train {recipe} {cases if made.manifest else source} -o {output.stem}_run")


def plan_before_training(source: Path, output: Path, *, device: str, resume: bool) -> tuple[Path, Path]:
    """Recipe and cases for a folder of data, planned beside the folder of its training.

    A training that is resumed takes those of its beginning.
    """
    from medseg.planning.planner import PlanOptions, check_plan_outputs
    from medseg.planning.planner import plan as make_plan

    recipe, cases = output.with_name(f"{output.name}.yaml"), output.with_name(f"{output.name}.cases.csv")
    if resume and recipe.is_file():
        return recipe, cases if cases.is_file() else source
    check_plan_outputs(recipe)
    made = make_plan(
        source,
        PlanOptions(device=device, measure=False),
        name=output.name,
        made=output.with_name(f"{output.name}_labels"),
    )
    for path in made.write(recipe):
        print(f"wrote {path}", file=sys.stderr)
    return recipe, cases if made.manifest else source


def gigabytes(text: str | None) -> float | None:
    """``8G`` or ``500M`` in GB; a bare number is GB."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([gm]?)(?:i?b)?", text.strip().casefold())
    if not match or float(match[1]) <= 0:
        raise UsageError(
            f"cannot read the memory {text!r}", where="--memory", remedy="write 8G or 500M", reason="usage"
        )
    return float(match[1]) * _UNITS[match[2] or "g"]
