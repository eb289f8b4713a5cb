"""``medseg evaluate``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medseg.cli.options import AsJson, DataRoot, Device, Engine
from medseg.errors import UsageError
from medseg.io.sidecar import RESEARCH, facts_of, sidecar_path, write_json

if TYPE_CHECKING:
    from medseg.datasets.manifest import Case
    from medseg.images.label import Label
    from medseg.images.volume import Mask

    Way = tuple[Callable[[Case], Mask], tuple[Label, ...], int | None]
    """Gives the mask of a case; which labels of it are scored; the integer that means unknown."""


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
    nsd_tolerance_mm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MM|LABEL=MM",
            help="Of the surface Dice (default 3): for all labels, or for one; may be repeated.",
        ),
    ] = None,
    device: Device = "cpu",
    engine: Engine = "auto",
    as_json: AsJson = False,
) -> None:
    """Compare masks with the truth: overlap, surfaces, volume and lesions of every case and label."""
    from medseg.datasets.manifest import Manifest
    from medseg.evaluation import evaluator as evaluation
    from medseg.evaluation.metrics import NSD_TOLERANCE_MM

    everything = Manifest.read(manifest, root=data_root)
    cases = everything.cases if split == "all" else everything.split(split)
    if not cases:
        raise UsageError(
            f"no case has split {split!r}", where=manifest, remedy="give --split all", reason="usage"
        )
    single = _tolerances(nsd_tolerance_mm or [])
    output.mkdir(parents=True, exist_ok=True)
    if model is not None and masks is None:
        predict, labels, ignore_value = _segmenting(model, device, engine, output)
    elif masks is not None and recipe is not None and model is None:
        predict, labels, ignore_value = _reading(masks, recipe)
    else:
        raise UsageError(
            "need either --model, or --masks with --recipe", where="medseg evaluate", reason="usage"
        )
    every = single.pop("", NSD_TOLERANCE_MM)
    frame = evaluation.evaluate(
        cases,
        predict,
        labels,
        nsd_tolerance_mm={label.name: every for label in labels} | single,
        ignore_value=ignore_value,
    )
    evaluation.write(frame, output)
    if as_json:
        print((output / "summary.json").read_text(encoding="utf-8"), end="")
    else:
        print((output / "summary.md").read_text(encoding="utf-8"), end="")
    failed = frame[frame["status"] == "failed"]
    for _, row in failed.drop_duplicates("case").iterrows():
        print(f"failed: {row['case']}: {row['reason']}", file=sys.stderr)
    print(f"wrote {output / 'evaluation.csv'}. {RESEARCH}", file=sys.stderr)
    if len(failed):
        raise typer.Exit(1)


def _tolerances(given: list[str]) -> dict[str, float]:
    """By label; under "" the one for all labels."""
    found = {}
    for text in given:
        label, _, mm = text.rpartition("=")
        try:
            found[label] = float(mm)
        except ValueError:
            raise UsageError(
                f"no tolerance can be read from {text!r}",
                where="--nsd-tolerance-mm",
                remedy="give millimetres, such as 2, or a label and millimetres, such as tumour=1",
                reason="tolerance",
            ) from None
    return found


def _segmenting(model: str, device: str, engine: str, output: Path) -> Way:
    from medseg.inference.registry import load_segmenter
    from medseg.io import read_channels
    from medseg.visualization.thumbnails import encoded, line, thumbnail

    segment_scan = load_segmenter(model, device=device, engine=engine)
    folder = output / "masks"
    folder.mkdir(exist_ok=True)
    pictures = output / "thumbnails.jsonl"
    pictures.unlink(missing_ok=True)

    def predict(case: Case) -> Mask:
        volumes = read_channels(case.images, channels=len(segment_scan.channels))
        mask = segment_scan(volumes)
        path = mask.save(folder / f"{case.id}.nii.gz")
        write_json(sidecar_path(path), facts_of(mask, segment_scan))
        with pictures.open("a", encoding="utf-8") as file:
            file.write(line(case.id, "", encoded(thumbnail(volumes[0], mask))))
        print(f"{case.id}: segmented", file=sys.stderr)
        return mask

    return predict, segment_scan.labels, segment_scan.ignore_value


def _reading(masks: Path, recipe: str) -> Way:
    from medseg.io import read_mask
    from medseg.recipe import Recipe

    chosen = Recipe.read(recipe)

    def predict(case: Case) -> Mask:
        return read_mask(masks / f"{case.id}.nii.gz", chosen.labels)

    return predict, chosen.labels, chosen.ignore_value
