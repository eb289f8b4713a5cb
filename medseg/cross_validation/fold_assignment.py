"""Which case is held out in which fold, drawn once and kept in a file."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from medseg.datasets.manifest import Case, Manifest
from medseg.datasets.splits import folds
from medseg.errors import UsageError
from medseg.recipe import Recipe
from medseg.system.atomic_write import replacing

FILE = "folds.json"


@dataclass(frozen=True)
class FoldAssignment:
    """The folds of a cross-validation.

    Attributes:
        count: Number of folds.
        recipe_digest: Digest of the recipe.
        fold_of: The fold that holds out each case, from 0, by case id.
        data: Digest of the files and preparation of each case, by case id.
    """

    count: int
    recipe_digest: str
    fold_of: dict[str, int]
    data: dict[str, str]

    @classmethod
    def draw(
        cls,
        cases: Sequence[Case],
        recipe: Recipe,
        count: int,
        data: Mapping[str, str],
        present: Mapping[str, Collection[str]],
    ) -> FoldAssignment:
        """Folds by patient, stratified by group and by the labels that occur; see :func:`folds`.

        Args:
            cases: All cases. Patients in split ``test``, and cases without a label, are in no fold.
            recipe: Its training seed decides the folds.
            count: Number of folds.
            data: Digest of each case.
            present: Names of the labels that occur in each case.

        Raises:
            UsageError: fewer patients than folds, or fewer than two folds (``manifest-folds``).
        """
        parts = folds(Manifest(recipe.name, tuple(cases)), count, recipe.train.seed, present)
        held = {case.id: fold for fold, part in enumerate(parts) for case in part.split("val")}
        return cls(count, recipe.digest, dict(sorted(held.items())), dict(sorted(data.items())))

    @classmethod
    def read(cls, folder: Path) -> FoldAssignment | None:
        """The folds in the folder of a cross-validation; None if there are none.

        Raises:
            UsageError: the file is damaged, or of another origin (``fold-file``).
        """
        path = folder / FILE
        if not path.exists():
            return None
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            read = cls(**held)
            right = (
                type(read.count) is int
                and all(type(fold) is int and 0 <= fold < read.count for fold in read.fold_of.values())
                and read.fold_of.keys() == read.data.keys()
            )
            if not right:
                raise ValueError("its folds and cases do not belong together")
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise UsageError(
                f"not the folds of a cross-validation: {str(error)[:120]}",
                where=path,
                remedy="restore the file, or choose another folder",
                reason="fold-file",
            ) from None
        return read

    def write(self, folder: Path) -> None:
        """Writes ``folds.json`` atomically."""
        with replacing(folder / FILE) as fresh:
            fresh.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    def check(self, recipe: Recipe, count: int, data: Mapping[str, str]) -> None:
        """Refuses to continue a cross-validation with another recipe, number of folds, or other cases.

        Args:
            recipe: Recipe now.
            count: Number of folds now.
            data: Digest of each case now.

        Raises:
            UsageError: one of them has changed (``folds-changed``).
        """
        changed = sorted(
            case for case in self.data.keys() | data.keys() if self.data.get(case) != data.get(case)
        )
        problem = None
        if count != self.count:
            problem = f"--folds is {count}, but this cross-validation has {self.count} folds"
        elif recipe.digest != self.recipe_digest:
            problem = "the recipe has changed since the folds were drawn"
        elif changed:
            was, now = ("present" if changed[0] in each else "absent" for each in (self.data, data))
            how = "its files have changed" if was == now else f"it was {was} and is now {now}"
            many = f"{len(changed)} case(s) have changed since the folds were drawn"
            problem = f"{many}, the first is {changed[0]}: {how}"
        if problem is not None:
            raise UsageError(
                problem,
                where=FILE,
                remedy="restore what has changed, or choose a new folder",
                reason="folds-changed",
            )

    def cases(self, cases: Sequence[Case], fold: int) -> list[Case]:
        """The cases of the cross-validation with their splits in one fold: held out is ``val``."""
        return [
            case.model_copy(update={"split": "val" if self.fold_of[case.id] == fold else "train"})
            for case in cases
            if case.id in self.fold_of
        ]
