"""``medseg train``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medseg.cli.argument_order import check_recipe_and_manifest
from medseg.cli.early_checks import check_model
from medseg.cli.options import DataRoot, Device, seconds_of
from medseg.cli.output import print_next
from medseg.cli.progress import Progress
from medseg.errors import UsageError
from medseg.system.notices import RESEARCH
from medseg.system.output_folder import check_output_folder

if TYPE_CHECKING:
    from medseg.cross_validation.runner import CrossValidation


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="Recipe file or name of a shipped recipe; or a folder of scans and labels, for which a "
            "recipe is planned first.",
            show_default=False,
        ),
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Argument(
            help="Cases: a CSV, JSON or YAML file, or an MSD or nnU-Net folder.", show_default=False
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Output folder of the training.")
    ] = None,
    data_root: DataRoot = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder that keeps the prepared cases.", show_default="RUN/cache")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint.")] = False,
    accept_changes: Annotated[
        bool,
        typer.Option(
            "--accept-changes",
            help="With --resume: continue although the device or the number of processes has changed.",
        ),
    ] = False,
    rerun: Annotated[
        Path | None, typer.Option(help="Repeat the training in this folder, in place of RECIPE and MANIFEST.")
    ] = None,
    folds: Annotated[
        int | None, typer.Option(min=2, help="Cross-validate with this many folds, divided by patient.")
    ] = None,
    fold: Annotated[
        int | None, typer.Option(min=0, help="With --folds: train only this fold, counted from 0.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Start from the weights of this model: a model file, or a name listed by `medseg models`.",
        ),
    ] = None,
    keep_labels: Annotated[
        bool,
        typer.Option(
            "--keep-labels",
            help="With --from: let that model segment its own labels in cases that are not annotated for "
            "them, so that they are not forgotten. Same as fine_tune.keep_labels in the recipe.",
        ),
    ] = False,
    track: Annotated[
        list[str] | None, typer.Option(help="Also log to wandb (offline) or mlflow; may be repeated.")
    ] = None,
    max_time: Annotated[
        str | None,
        typer.Option(
            help="Time limit for all epochs, such as 40m, 2h or 90s (a bare number is minutes), including "
            "those before --resume. No epoch is begun that would exceed it; the first is always trained."
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that load data, per device.")] = 1,
    device: Device = "auto",
    devices: Annotated[
        int, typer.Option(min=1, help="Number of GPUs per machine, or of processes on a CPU.")
    ] = 1,
    nodes: Annotated[
        int, typer.Option(min=1, help="Number of machines in a cluster; see docs/cluster.md.")
    ] = 1,
) -> None:
    """Train a model from a recipe and a manifest, or plan the recipe for a folder of data first."""
    folder = Path(recipe) if recipe is not None and manifest is None and Path(recipe).is_dir() else None
    complete = folder is not None or (recipe is not None and manifest is not None)
    if output is None or (rerun is None) != complete:
        raise UsageError(
            "missing arguments: need -o RUN, and RECIPE and MANIFEST, or FOLDER, or --rerun FOLDER",
            remedy="medseg train RECIPE MANIFEST -o RUN",
            reason="usage",
        )
    if folder is None:
        check_recipe_and_manifest(recipe, manifest)
    if keep_labels and (source is None or rerun is not None):
        raise UsageError(
            "--keep-labels needs --from, and --rerun repeats what the first training did",
            remedy="medseg train RECIPE MANIFEST -o RUN --from MODEL --keep-labels",
            reason="usage",
        )
    if (fold is not None and folds is None) or (folds is not None and rerun is not None):
        raise UsageError(
            "--fold needs --folds, and --folds cannot be combined with --rerun",
            remedy="medseg train RECIPE MANIFEST -o RUN --folds 5 --fold 0",
            reason="usage",
        )
    seconds = seconds_of(max_time)
    check_output_folder(output)
    if folder is not None:
        from medseg.cli.plan import plan_before_training

        # Of a fold on another machine the recipe may be there already.
        again = resume or fold is not None
        planned, manifest = plan_before_training(folder, output, device=device, resume=again)
        recipe = str(planned)
    from medseg.datasets.manifest import Manifest
    from medseg.recipe import FineTune, Recipe

    if recipe is not None and manifest is not None:  # mistakes in them are named before the large imports
        chosen = Recipe.read(recipe)
        if keep_labels:
            rules = chosen.fine_tune or FineTune()
            chosen = chosen.model_copy(update={"fine_tune": rules.model_copy(update={"keep_labels": True})})
        data = Manifest.read(manifest, root=data_root)
    check_model(source)
    from medseg.cross_validation.runner import Folds, cross_validate
    from medseg.training import provenance

    if (
        recipe is not None and manifest is not None and folds is None
    ):  # a repetition is checked with its own recipe
        provenance.check_outputs(output, [recipe, manifest], chosen if keep_labels else recipe)
    from medseg.reporting.folder_report import report
    from medseg.training import session
    from medseg.training.fine_tuning import FineTuning, summary_lines
    from medseg.training.hardware import Hardware
    from medseg.training.interrupt import Terminated, sigterm_raises
    from medseg.training.loggers import NO_REPORTS
    from medseg.training.session import TrainingOptions
    from medseg.training.trainer import is_first_process

    for tracker in NO_REPORTS.keys() & set(track or ()):
        os.environ.setdefault(*NO_REPORTS[tracker])  # this process is the command's own
    if source is not None and recipe is not None and is_first_process():
        tuning = FineTuning.of(source, chosen)
        print("\n".join(summary_lines(tuning.facts())), file=sys.stderr)
    with Progress() as progress, sigterm_raises():
        settings: dict[str, Any] = {
            "resume": resume,
            "hardware": Hardware(device, devices, nodes, workers),
            "options": TrainingOptions(
                cache, seconds, tuple(track or ()), accept_changes=accept_changes, source=source
            ),
            "on_epoch": progress.show,
            "progress": progress.prepared,
        }
        try:
            if folds is not None:
                assert recipe is not None  # checked above
                assert manifest is not None
                del settings["progress"]
                settings["on_epoch"] = progress.show_fold
                result = cross_validate(
                    chosen if keep_labels else recipe,
                    data,
                    output,
                    folds=Folds(folds, fold),
                    **settings,
                )
            elif rerun is not None:
                model = session.rerun(rerun, output, root=data_root, **settings)
            else:
                assert recipe is not None  # checked above
                assert manifest is not None
                model = session.train(chosen if keep_labels else recipe, data, output, **settings)
        except KeyboardInterrupt as stopped:
            print(
                "stopped: run the same command with --resume to continue after the last finished epoch",
                file=sys.stderr,
            )
            if isinstance(stopped, Terminated):
                raise SystemExit(128 + signal.SIGTERM) from None
            raise
    if not is_first_process():
        return
    if folds is not None:
        _print_folds(result, output)
        print(f"wrote {report(output)}", file=sys.stderr)
        if result.model is not None:
            print_next("segment", "SCAN", "-o", "mask.nii.gz", "--model", output / "model.safetensors")
        return
    report(output)
    if progress.waiting is not None:
        share = f"{100 * progress.waiting:.1f} % of the training time after the first epoch"
        print(f"waited for data: {share}", file=sys.stderr)
    print(f"wrote {output / 'model.safetensors'} (sha256 {model.digest[:12]}). {RESEARCH}")
    _print_next(output, "MANIFEST" if manifest is None else manifest)


def _print_next(output: Path, cases: Path | str) -> None:
    """Prints the command that evaluates the model; without validation cases, the one that uses it."""
    from medseg.training import provenance

    model = output / "model.safetensors"
    if any(case.split == "val" for case in provenance.read(output).cases):
        print_next("evaluate", cases, "--model", model, "--split", "val", "-o", output / "val")
    else:
        print_next("segment", "SCAN", "-o", "mask.nii.gz", "--model", model)


def _print_folds(result: CrossValidation, output: Path) -> None:
    """Prints the out-of-fold Dice of every label, or that folds are missing."""
    if result.model is None or result.summary is None:
        print(
            f"other folds are not finished yet: their models and scores are made with the last one, {output}"
        )
        return
    for label, row in result.summary[result.summary["group"] == "all"].iterrows():
        low, high = row["dice_ci_low"], row["dice_ci_high"]
        dice = f"out-of-fold Dice {row['dice_mean']:.4f} (95 % CI {low:.4f} to {high:.4f})"
        print(f"{label}: {dice}, {row['n']:.0f} cases, {row['failed']:.0f} failed")
    for step in result.model.recipe.postprocess.steps:
        print(f"postprocessing, {step}")
    path = output / "model.safetensors"
    print(
        f"wrote {path} with {len(result.model.folds)} folds (sha256 {result.model.digest[:12]}). {RESEARCH}"
    )
