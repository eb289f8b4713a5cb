"""A picture of a training patch and its random augmentations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from medseg.datasets.manifest import Case, Manifest
from medseg.errors import UsageError
from medseg.io.overwrite_guard import OverwriteGuard, is_own_picture
from medseg.recipe import Recipe
from medseg.training.case_cache import cached
from medseg.training.deep_supervision import label_channels
from medseg.training.patches import Patches
from medseg.visualization.overlays import samples


@dataclass(frozen=True)
class AugmentationPicture:
    """The result of :func:`preview_augmentation`: path of the PNG, and id of the case shown."""

    path: Path
    case: str


def preview_augmentation(
    recipe: Recipe | str | Path,
    cases: Manifest | str | Path,
    output: str | Path,
    *,
    case: str | None = None,
    seed: int = 0,
    count: int = 16,
    root: str | Path | None = None,
) -> AugmentationPicture:
    """A PNG of one training patch with its labels, unchanged and augmented at random.

    Args:
        recipe: A recipe, the path of its file, or the name of a shipped one; it defines the augmentation.
        cases: A manifest, or its path.
        output: Path of the PNG.
        case: Id of a case; by default the first of split ``train``.
        seed: Selects the patch and its random changes.
        count: Number of pictures, at least 2; the first is unchanged.
        root: Folder of the manifest's files, if it is not the one named in the manifest. Only for a path.

    Raises:
        UsageError: no such recipe, manifest or case; the output would replace an input
            (``overwrites-input``) or a file that medseg did not draw (``foreign-file``).
        InputRefused: the case cannot be read, or a check finds an error in it.

    Example:
        >>> made = medseg.preview_augmentation("tiny.yaml", "cases.csv", "patches.png", count=4)
        >>> made.case, made.path.name
        ('case_0', 'patches.png')
    """
    where = cases.name if isinstance(cases, Manifest) else cases
    chosen = recipe if isinstance(recipe, Recipe) else Recipe.read(recipe)
    manifest = cases if isinstance(cases, Manifest) else Manifest.read(cases, root=root)
    images = [path for each in manifest.cases for path in (*each.images, each.label) if path is not None]
    guard = OverwriteGuard([*images, *(each for each in (recipe, cases) if isinstance(each, str | Path))])
    guard.check(output, is_own=is_own_picture)
    picked = _picked(manifest.cases, case, where)
    images, labels = _changed(picked, chosen, seed, count)
    names = [label.name for label in chosen.labels]
    samples(images, labels, output, names=names, pixel_mm=chosen.prepare.spacing_mm[:2])
    return AugmentationPicture(Path(output), picked.id)


def _picked(cases: tuple[Case, ...], wanted: str | None, manifest: str | Path) -> Case:
    candidates = [c for c in cases if (c.id == wanted if wanted is not None else c.split == "train")]
    if candidates:
        return candidates[0]
    raise UsageError(
        f"no case {wanted!r}" if wanted is not None else "no case has split 'train'",
        where=manifest,
        remedy="give the id of a case with --case" if wanted is None else "give an id of the manifest",
        reason="usage",
    )


def _changed(case: Case, recipe: Recipe, seed: int, count: int) -> tuple[Any, Any]:
    """Axial (count, X, Y) images and (count, L, X, Y) labels of one patch; the first is unchanged."""
    # Centred on a label, so that the picture shows one.
    schedule = recipe.train.model_copy(update={"foreground_fraction": 1.0})
    centred = recipe.model_copy(update={"train": schedule})
    with TemporaryDirectory() as cache:
        patches = Patches([cached(case, recipe, Path(cache))], centred)
        seeds = [int(np.random.default_rng([seed, number]).integers(2**31)) for number in range(1, count)]
        drawn = [patches.variant((0, seed), each) for each in (None, *seeds)]
    # In 2D the slice itself lies between its neighbours.
    images = np.stack([one["image"][recipe.patch.neighbours * len(recipe.channels)] for one in drawn])
    labels = np.stack([label_channels(one["label"][None], one["table"][None])[0] for one in drawn])
    if recipe.spatial_dims == 3:
        at = int(np.argmax((labels[0] == 1).sum((0, 1, 2))))
        images, labels = images[..., at], labels[..., at]
    return images, labels
