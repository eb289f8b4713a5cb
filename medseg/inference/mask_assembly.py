"""The mask of a scan from a network's probabilities: resampled, thresholded, cleaned and painted."""

from __future__ import annotations

from dataclasses import dataclass

from medseg.images.grid import Grid
from medseg.images.run_length import Runs
from medseg.images.volume import Mask, Source, Volume
from medseg.inference.cleaning_steps import clean
from medseg.inference.label_decision import LabelDecision, empty_label_map
from medseg.inference.lung_checks import qc_findings
from medseg.inference.lungs import find_sides
from medseg.inference.native_grid import label_map, label_runs
from medseg.inference.postprocessing import postprocess
from medseg.inference.restored_tile import Planes
from medseg.recipe import Postprocess, Recipe
from medseg.system.memory import trim_heap
from medseg.system.notices import send

# Leaving out less than this is not worth a notice.
_LEAST_ML = 5.0


@dataclass(frozen=True)
class Target:
    """The scan that a mask is made for.

    Attributes:
        grid: Grid of the scan.
        source: Source of the scan.
        scan: The scan itself if its voxels are needed again to tell the lungs apart; otherwise None, so that
            its memory can be released.
    """

    grid: Grid
    source: Source
    scan: Volume | None

    @classmethod
    def of(cls, scan: Volume, recipe: Recipe) -> Target:
        """The parts of a scan that a recipe still needs."""
        return cls(scan.grid, scan.source, scan if recipe.postprocess.divide else None)


def build_mask(planes: Planes, prepared: Grid, target: Target, recipe: Recipe) -> Mask:
    """The mask on the scan's grid.

    The recipe's :class:`LabelDecision` says which labels a voxel belongs to; each label is then cleaned, and
    all are painted in their order. The steps of the recipe's section ``postprocess`` then clean the finished
    mask.

    Args:
        planes: Probabilities on the prepared grid.
        prepared: The prepared grid.
        target: The scan that the mask is made for.
        recipe: Defines the labels and how each is cleaned.
    """
    decision = LabelDecision.from_recipe(recipe)
    steps = recipe.postprocess.steps
    if decision.exclusive and recipe.postprocess.rules == Postprocess():
        painted = label_map(planes, prepared, target.grid, decision=decision)
        clean(painted, target.grid, recipe.painted, steps)
        return Mask(painted, target.grid, recipe.painted, target.source)
    runs = label_runs(planes, prepared, target.grid, decision=decision)
    trim_heap()  # memory of the network and the prepared scan
    painted = empty_label_map(target.grid.shape, [label.value for label in recipe.painted])
    for label in recipe.labels:
        whole = runs.pop(0)
        parts = (whole,) if target.scan is None else _sides(whole, target.scan, recipe.postprocess)
        cleaned = [_cleaned(part, target.grid, recipe.postprocess) for part in parts]
        del whole, parts
        trim_heap()  # memory of the components; painting needs its own
        for part, painting in zip(cleaned, recipe.postprocess.divide or (label,), strict=True):
            part.paint(painted, painting.value)
    clean(painted, target.grid, recipe.painted, steps)
    mask = Mask(painted, target.grid, recipe.painted, target.source)
    if target.scan is not None:
        send(each.at(target.source.path) for each in qc_findings(mask, target.scan))
    return mask


def _sides(lungs: Runs, scan: Volume, rules: Postprocess) -> tuple[Runs, Runs]:
    """The right and the left lung; notices tell what was left out."""
    right, left, notices = find_sides(lungs, scan, least_ml=max(rules.min_volume_ml, _LEAST_ML))
    send(notices)
    return right, left


def _cleaned(mask: Runs, grid: Grid, rules: Postprocess) -> Runs:
    return postprocess(
        mask,
        grid,
        keep_components=rules.keep_components,
        fill_holes=rules.fill_holes,
        min_volume_ml=rules.min_volume_ml,
        min_share=rules.min_share,
    )
