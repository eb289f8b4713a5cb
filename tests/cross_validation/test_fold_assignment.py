"""Folds: drawn once by patient, group and label, kept in a file, and refused when something has changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.people import people
from support.worlds import tiny

from medseg.cross_validation.fold_assignment import FILE, FoldAssignment
from medseg.errors import UsageError


def drawn(count: int = 3) -> FoldAssignment:
    cases = people(12, scans=2, groups="ab").cases
    # Three patients have a tumour: p0, p2 and p4, all of group a.
    present = {c.id: ["lung", *(["tumour"] if c.patient in ("p0", "p2", "p4") else [])] for c in cases}
    return FoldAssignment.draw(
        cases, tiny(), count, {case.id: f"digest of {case.id}" for case in cases}, present
    )


def test_each_fold_has_its_share_of_patients_groups_and_rare_labels() -> None:
    cases = people(12, scans=2, groups="ab").cases
    assignment = drawn()
    for fold in range(3):
        held = [case for case in cases if assignment.fold_of[case.id] == fold]
        assert len({case.patient for case in held}) == 4
        assert len(held) == 8  # both scans of each patient
        assert len({case.patient for case in held if case.group == "a"}) == 2
        assert len({case.patient for case in held} & {"p0", "p2", "p4"}) == 1


def test_the_file_gives_back_the_folds(tmp_path: Path) -> None:
    assert FoldAssignment.read(tmp_path) is None
    drawn().write(tmp_path)
    assert FoldAssignment.read(tmp_path) == drawn()


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"count": 2, "recipe_digest": "", "fold_of": {"a": 2}, "data": {"a": ""}}']
)
def test_a_damaged_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(UsageError, match="not the folds of a cross-validation") as caught:
        FoldAssignment.read(tmp_path)
    assert caught.value.reason == "fold-file"


def test_changes_are_refused_and_named() -> None:
    assignment = drawn()
    first = min(assignment.data)
    assignment.check(tiny(), 3, assignment.data)
    less = {case: each for case, each in assignment.data.items() if case != first}
    for recipe, count, data, named in (
        (tiny(), 4, assignment.data, "--folds is 4, but this cross-validation has 3 folds"),
        (tiny(train={"epochs": 3}), 3, assignment.data, "the recipe has changed"),
        (tiny(), 3, assignment.data | {first: "other"}, f"{first}: its files have changed"),
        (tiny(), 3, less, f"{first}: it was present and is now absent"),
        (tiny(), 3, assignment.data | {"z": "new"}, "z: it was absent and is now present"),
    ):
        with pytest.raises(UsageError, match=named) as caught:
            assignment.check(recipe, count, data)
        assert caught.value.reason == "folds-changed"
