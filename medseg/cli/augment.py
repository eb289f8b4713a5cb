"""``medseg augment``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medseg.cli.options import DataRoot
from medseg.errors import UsageError

if TYPE_CHECKING:
    from medseg.datasets.manifest import Case
    from medseg.recipe import Recipe


def augment(
    recipe: Annotated[str, typer.Argument(help="Recipe file, or the name of a shipped recipe.")],
    manifest: Annotated[Path, typer.Argument(help="Cases: CSV, JSON, YAML, MSD or nnU-Net folder.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The PNG to write.")],
    case: Annotated[
        str | None, typer.Option("--case", help="Id of a case; by default the first of split train.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another patch, and other random changes of it.")] = 0,
    count: Annotated[int, typer.Option(min=2, max=64, help="How many pictures.")] = 16,
    data_root: DataRoot = None,
) -> None:
    """Draw a training patch with its labels as it is, and as a recipe's random changes make it."""
    from medseg.datasets.manifest import Manifest
    from medseg.recipe import Recipe

    chosen = Recipe.read(recipe)
    picked = _picked(Manifest.read(manifest, root=data_root).cases, case, manifest)
    from medseg.visualization.overlays import samples

    images, labels = _changed(picked, chosen, seed, count)
    samples(
        images,
        labels,
        output,
        names=[label.name for label in chosen.labels],
        pixel_mm=chosen.prepare.spacing_mm[:2],
    )
    print(f"wrote {output}: case {picked.id}, {count - 1} random changes of one patch", file=sys.stderr)


def _picked(cases: tuple[Case, ...], wanted: str | None, manifest: Path) -> Case:
    fitting = [c for c in cases if (c.id == wanted if wanted is not None else c.split == "train")]
    if fitting:
        return fitting[0]
    raise UsageError(
        f"no case {wanted!r}" if wanted is not None else "no case has split 'train'",
        where=manifest,
        remedy="give the id of a case with --case" if wanted is None else "give an id of the manifest",
        reason="usage",
    )


def _changed(case: Case, recipe: Recipe, seed: int, count: int) -> tuple[Any, Any]:
    """Axial (count, X, Y) images and (count, L, X, Y) labels of one patch; the first is unchanged."""
    from tempfile import TemporaryDirectory

    import numpy as np

    from medseg.preprocessing.augmentation import augment
    from medseg.training.case_cache import Patches, cached

    # Around a label, because that is what the picture is to show.
    schedule = recipe.train.model_copy(update={"foreground_fraction": 1.0})
    centred = recipe.model_copy(update={"train": schedule})
    with TemporaryDirectory() as cache:
        patch = Patches([cached(case, recipe, Path(cache))], centred, augmented=False)[0, seed]
    drawn = [{"image": patch["image"], "label": patch["label"]}]
    change = augment(recipe)
    for number in range(1, count):
        change.set_random_state(seed=int(np.random.default_rng([seed, number]).integers(2**31)))
        drawn.append(change(drawn[0]))
    # 2D: the slice itself lies between its neighbours.
    images = np.stack([one["image"][recipe.patch.neighbours * len(recipe.channels)] for one in drawn])
    labels = np.stack([one["label"] for one in drawn])
    if recipe.spatial_dims == 3:
        at = int(np.argmax((labels[0] == 1).sum((0, 1, 2))))
        images, labels = images[..., at], labels[..., at]
    return images, labels
