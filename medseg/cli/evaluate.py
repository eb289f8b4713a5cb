"""``medseg evaluate``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medseg.cli.argument_order import check_recipe_and_manifest
from medseg.cli.early_checks import check_model
from medseg.cli.options import AsJson, DataRoot, Device, Engine, SplitOrAll, model_names
from medseg.cli.output import print_next
from medseg.errors import UsageError
from medseg.system.notices import RESEARCH
from medseg.system.output_folder import check_output_folder

if TYPE_CHECKING:
    from medseg.images.label import Label


def evaluate(
    manifest: Annotated[
        Path, typer.Argument(help="Cases: a CSV, JSON or YAML file, or an MSD or nnU-Net folder.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the tables and masks.")],
    model: Annotated[
        str | None,
        typer.Option(
            help="Segment the cases with this model: a model file, or a name listed by `medseg models`.",
            autocompletion=model_names,
        ),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(help="Score the masks in this folder instead; each is named by its case id."),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="With --masks: take the labels from this recipe.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE[,VALUE]",
            help="With --masks: a label of the masks, in place of --recipe; may be repeated.",
        ),
    ] = None,
    split: Annotated[SplitOrAll, typer.Option(help="Evaluate the cases of this split.")] = "test",
    data_root: DataRoot = None,
    nsd_tolerance_mm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MM|LABEL=MM",
            help="Tolerance of the surface Dice (NSD) in mm, for all labels or for one; may be repeated.",
            show_default="3 mm",
        ),
    ] = None,
    device: Device = "auto",
    engine: Engine = "auto",
    as_json: AsJson = False,
) -> None:
    """Score masks against the ground truth: overlap, surface distance, volume and lesions."""
    tolerances = _tolerances(nsd_tolerance_mm or [])
    if recipe and label:
        raise UsageError(
            "give either --model, or --masks with --recipe or --label",
            where="medseg evaluate",
            reason="usage",
        )
    check_recipe_and_manifest(recipe, manifest)
    check_output_folder(output)
    check_model(model, engine)
    from medseg.datasets.manifest import Manifest

    cases = Manifest.read(manifest, root=data_root)
    from medseg.evaluation.model_evaluation import evaluate as evaluate_model
    from medseg.evaluation.summary_table import FILES
    from medseg.inference.registry import load_segmenter
    from medseg.io.overwrite_guard import OverwriteGuard

    inputs = [Path(each) for each in (manifest, model, recipe) if each is not None]
    guard = OverwriteGuard(path for path in inputs if path.is_file())
    for name in (*FILES, "thumbnails.jsonl"):
        guard.check(output / name)
    found = evaluate_model(
        cases,
        output,
        model=None if model is None else load_segmenter(model, device=device, engine=engine),
        masks=masks,
        labels=recipe or [_label(text) for text in label or []],
        split=split,
        nsd_tolerance_mm=tolerances,
        progress=None if sys.stderr.isatty() else _show_case,
    )
    if as_json:
        print((output / "summary.json").read_text(encoding="utf-8"), end="")
    else:
        print((output / "summary.md").read_text(encoding="utf-8"), end="")
    for case, reason in found.failures.items():
        print(f"failed: {case}: {reason}", file=sys.stderr)
    print(f"wrote {output / 'evaluation.csv'}. {RESEARCH}", file=sys.stderr)
    print_next("report", output)
    if found.failures:
        raise typer.Exit(1)


def _label(text: str) -> Label:
    """The label written as ``name=value,value``."""
    from medseg.images.label import Label

    name, _, values = text.rpartition("=")
    try:
        return Label(name=name, values=tuple(int(value) for value in values.split(",")))
    except ValueError:  # pydantic's errors are ValueErrors
        raise UsageError(
            f"cannot read a label from {text!r}",
            where="--label",
            remedy="give a name and its values from 1 to 65535, such as tumour=1 or lungs=1,2",
            reason="labels",
        ) from None


def _tolerances(given: list[str]) -> dict[str, float]:
    """Tolerance in mm by label; the key "" stands for all labels."""
    found = {}
    for text in given:
        label, _, mm = text.rpartition("=")
        try:
            found[label] = float(mm)
        except ValueError:
            raise UsageError(
                f"invalid tolerance {text!r}",
                where="--nsd-tolerance-mm",
                remedy="give millimetres, such as 2, or a label and millimetres, such as tumour=1",
                reason="tolerance",
            ) from None
    return found


def _show_case(done: int, total: int, facts: str = "", /) -> None:
    """Prints a line for every case that is segmented."""
    if facts:
        print(facts, file=sys.stderr)
