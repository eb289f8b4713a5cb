"""Arguments in the wrong order: named, with the command that has them in the right one."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from medseg.errors import InputRefused, UsageError

_NOT_LABELS = ("mask-range", "mask-dtype")
_MANIFEST_KEYS = re.compile(rb'^\s*"?(cases|training|channel_names)"?\s*:', re.MULTILINE)
_RECIPE_KEYS = re.compile(rb'^"?(network|labels|patch)"?\s*:', re.MULTILINE)
_ENOUGH = 1 << 16


@contextmanager
def scan_before_mask(scan: Path, mask: Path) -> Iterator[None]:
    """Explains, if the block refuses the voxels of the mask, which of both arguments is wrong.

    Raises:
        UsageError: the scan is a label map and the mask is not: they are exchanged; or both are the
            same mask (``usage``).
        InputRefused: the mask is not one, with a remedy that says so.
    """
    if scan == mask:
        from medseg.io.label_maps import is_label_map

        if is_label_map(scan):
            raise UsageError(
                "scan and mask are the same file, which is a mask",
                where=scan,
                remedy=f"give the scan first: medseg {' '.join(sys.argv[1:2])} SCAN {shlex.quote(str(mask))}",
                reason="usage",
            )
    try:
        yield
    except InputRefused as error:
        if error.reason not in _NOT_LABELS or error.where != str(mask):
            raise
        from medseg.io.label_maps import is_label_map

        if is_label_map(scan):
            raise UsageError(
                f"the scan and the mask are exchanged: {scan} has labels in its voxels, {mask} has not",
                remedy=exchanged(str(scan), str(mask)),
                reason="usage",
            ) from error
        error.problem = f"this is not a mask but a scan or probabilities: {error.problem}"
        error.remedy = "give a mask of whole numbers, such as one that `medseg segment` wrote"
        raise


def check_recipe_and_manifest(recipe: str | None, manifest: Path | None) -> None:
    """Refuses a manifest in place of the recipe, a recipe in place of the manifest, or both.

    Raises:
        UsageError: either is clearly the other (``usage``).
    """
    instead = recipe is not None and _is_manifest(Path(recipe))
    other = manifest is not None and _is_recipe(str(manifest))
    if not instead and not other:
        return
    if recipe is not None and manifest is not None:
        raise UsageError(
            "the recipe and the manifest are exchanged" if instead and other else _single(instead),
            where=recipe if instead else manifest,
            remedy=exchanged(recipe, str(manifest)),
            reason="usage",
        )
    raise UsageError(
        _single(instead),
        where=recipe if instead else manifest,
        remedy="give a recipe here: `medseg recipe` lists those that are shipped"
        if instead
        else "give the manifest here, such as cases.csv; `medseg manifest FOLDER -o cases.csv` makes one",
        reason="usage",
    )


def exchanged(first: str, second: str) -> str:
    """The command in ``sys.argv`` with two of its arguments exchanged."""
    swap = {first: second, second: first}
    return shlex.join(["medseg", *(swap.get(word, word) for word in sys.argv[1:])])


def _single(is_manifest: bool) -> str:
    return "this is a manifest, not a recipe" if is_manifest else "this is a recipe, not a manifest"


def _is_manifest(path: Path) -> bool:
    if path.suffix.lower() == ".csv" or (path / "dataset.json").is_file():
        return True
    return path.suffix.lower() in (".json", ".yaml", ".yml") and bool(_MANIFEST_KEYS.search(_beginning(path)))


def _is_recipe(text: str) -> bool:
    path = Path(text)
    if path.suffix.lower() in (".yaml", ".yml"):
        start = _beginning(path)
        return bool(_RECIPE_KEYS.search(start)) and not _MANIFEST_KEYS.search(start)
    # Not medseg.recipe.list_recipes, whose module imports numpy.
    shipped = resources.files("medseg").joinpath("recipes", f"{path.name}.yaml")
    return path.name == text and shipped.is_file() and not path.exists()


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_ENOUGH)
    except (OSError, ValueError):
        return b""
