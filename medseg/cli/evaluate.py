"""``medseg evaluate``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medseg.cli.options import DataRoot, Device
from medseg.cli.output import RESEARCH, facts_of, sidecar, write_json
from medseg.errors import UsageError

if TYPE_CHECKING:
    from medseg.manifest import Case
    from medseg.volume import Mask


def evaluate(
    manifest: Annotated[Path, typer.Argument(help="Cases: CSV, JSON, YAML, MSD or nnU-Net folder.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the tables and masks.")],
    model: Annotated[str | None, typer.Option(help="Segment the cases with this model.")] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Or take the masks <case id>.nii.gz of this folder.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="Labels of --masks come from this recipe.")] = None,
    split: Annotated[str, typer.Option(help="Cases of this split; 'all' for every case.")] = "test",
    data_root: DataRoot = None,
    device: Device = "cpu",
) -> None:
    """Compare masks with the truth: Dice, IoU and volume error of every case and label."""
    from medseg import evaluate as evaluation
    from medseg.manifest import Manifest

    everything = Manifest.read(manifest, root=data_root)
    cases = everything.cases if split == "all" else everything.split(split)
    if not cases:
        raise UsageError(
            f"no case has split {split!r}", where=manifest, remedy="give --split all", reason="usage"
        )
    output.mkdir(parents=True, exist_ok=True)
    if model is not None and masks is None:
        predict, labels = _segmenting(model, device, output)
    elif masks is not None and recipe is not None and model is None:
        predict, labels = _reading(masks, recipe)
    else:
        raise UsageError(
            "need either --model, or --masks with --recipe", where="medseg evaluate", reason="usage"
        )
    frame = evaluation.evaluate(cases, predict, labels)
    evaluation.write(frame, output)
    print(evaluation.summary(frame).to_string())
    failed = frame[frame["status"] == "failed"]
    for _, row in failed.drop_duplicates("case").iterrows():
        print(f"failed: {row['case']}: {row['reason']}", file=sys.stderr)
    print(f"wrote {output / 'evaluation.csv'}. {RESEARCH}", file=sys.stderr)
    if len(failed):
        raise typer.Exit(1)


def _segmenting(model: str, device: str, output: Path) -> tuple[Any, Any]:
    from medseg.io import read_channels
    from medseg.segmenter import Segmenter

    segmenter = Segmenter(model, device=device)
    recipe = segmenter.model.recipe
    folder = output / "masks"
    folder.mkdir(exist_ok=True)

    def predict(case: Case) -> Mask:
        mask = segmenter(read_channels(case.images, channels=len(recipe.channels)))
        path = mask.save(folder / f"{case.id}.nii.gz")
        write_json(sidecar(path), facts_of(mask, segmenter.model.digest, recipe.name))
        print(f"{case.id}: segmented", file=sys.stderr)
        return mask

    return predict, recipe.labels


def _reading(masks: Path, recipe: str) -> tuple[Any, Any]:
    from medseg.io import read_mask
    from medseg.recipe import Recipe

    labels = Recipe.read(recipe).labels
    return (lambda case: read_mask(masks / f"{case.id}.nii.gz", labels)), labels
