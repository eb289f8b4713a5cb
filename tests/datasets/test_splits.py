"""Splits and folds by patient."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
from support.people import patients, people

from medseg.datasets.manifest import Case, Manifest
from medseg.datasets.splits import folds, with_splits
from medseg.errors import UsageError


def test_splits_keep_patients_whole_and_have_the_requested_sizes() -> None:
    manifest = with_splits(people(20, scans=3), val=0.1, test=4, seed=1)
    sizes = {name: len(patients(manifest, name)) for name in ("train", "val", "test")}
    assert sizes == {"train": 14, "val": 2, "test": 4}
    assert sum(len(manifest.split(name)) for name in sizes) == 60


def test_splits_depend_on_the_seed_and_not_on_order() -> None:
    manifest = people(30, scans=2, groups="aab")
    cases = list(manifest.cases)
    random.Random(0).shuffle(cases)
    shuffled = Manifest("people", tuple(cases))
    drawn = []
    for seed in (1, 2):
        one, other = (with_splits(m, val=5, test=5, seed=seed) for m in (manifest, shuffled))
        assert [patients(one, s) for s in ("val", "test")] == [patients(other, s) for s in ("val", "test")]
        drawn.append(patients(one, "test"))
        kept = zip(folds(manifest, 4, seed), folds(shuffled, 4, seed), strict=True)
        assert all(patients(a, "val") == patients(b, "val") for a, b in kept)
    assert drawn[0] != drawn[1]


def test_splits_keep_the_proportions_of_groups() -> None:
    # 20 of a, 10 of b: 6 of 30 patients are 4 of a and 2 of b, 3 more are 2 and 1.
    manifest = with_splits(people(30, groups="aab"), val=3, test=6, seed=5)
    assert Counter(case.group for case in manifest.split("test")) == {"a": 4, "b": 2}
    assert Counter(case.group for case in manifest.split("val")) == {"a": 2, "b": 1}


def test_existing_test_patients_are_kept_if_test_is_0() -> None:
    manifest = with_splits(people(10, test=3), val=2, test=0, seed=0)
    assert patients(manifest, "test") == {"p7", "p8", "p9"}
    assert (len(manifest.split("val")), len(manifest.split("train"))) == (2, 5)


def test_cases_without_label_are_not_drawn() -> None:
    cases = (
        *people(4).cases,
        Case(id="follow-up", patient="p0", images=(Path("x"),)),
        Case(id="unseen", images=(Path("y"),), split="test"),
        Case(id="spare", images=(Path("z"),), split="train"),
    )
    for seed in range(8):
        manifest = with_splits(Manifest("m", cases), val=1, test=1, seed=seed)
        split = {case.id: case.split for case in manifest.cases}
        assert split["unseen"] == "test"
        assert split["spare"] is None
        assert split["follow-up"] == ("test" if split["p0-0"] == "test" else None)


@pytest.mark.parametrize(
    ("val", "test"), [(-1, 0), (1.0, 0), (0, 2.5), (True, 0), (5, 5), (0.6, 0.4), (10, 0), (float("nan"), 0)]
)
def test_invalid_splits_are_refused(val: float, test: float) -> None:
    with pytest.raises(UsageError):
        with_splits(people(10), val=val, test=test, seed=0)


def test_a_small_fraction_is_at_least_one_patient() -> None:
    assert len(with_splits(people(5), val=0.01, test=0, seed=0).split("val")) == 1


def test_folds_cover_every_patient_once_and_keep_test() -> None:
    parts = folds(people(13, scans=2, groups="ab", test=2), 3, seed=4)
    held = [patients(part, "val") for part in parts]
    assert sorted(p for fold in held for p in fold) == sorted(f"p{n}" for n in range(11))
    assert sorted(map(len, held)) == [3, 4, 4]
    for part, fold in zip(parts, held, strict=True):
        assert patients(part, "test") == {"p11", "p12"}
        assert not patients(part, "train") & fold
        groups = Counter(case.group for case in part.split("val"))
        assert max(groups.values()) - min(groups.values()) <= 2  # two scans a patient: one patient


@pytest.mark.parametrize("k", [1, 12])
def test_invalid_numbers_of_folds_are_refused(k: int) -> None:
    with pytest.raises(UsageError, match="2 to 11"):
        folds(people(11), k, seed=0)


def test_a_patient_in_two_splits_is_refused() -> None:
    one, two = people(1, scans=2).cases
    cases = (one.model_copy(update={"split": "train"}), two.model_copy(update={"split": "test"}))
    with pytest.raises(UsageError, match=r"'p0' is in splits train and test \(case 2\)"):
        Manifest("m", cases)
