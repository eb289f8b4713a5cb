"""Splitting manifests by patient into train, val and test, or into folds."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from medseg.datasets.manifest import Case, Manifest, Split
from medseg.datasets.manifest_readers import wrong


def with_splits(manifest: Manifest, *, val: float | int, test: float | int, seed: int) -> Manifest:
    """The same cases with new splits into train, val and test by patient.

    Groups keep their proportions (Sainte-Laguë). The result depends only on the patients and the
    seed, not on the order of cases. Patients without any labelled case are never drawn.
    A case without a label stays in ``test`` if it is there, and is in no split otherwise.

    Args:
        manifest: Manifest whose splits are replaced, with one exception: if ``test`` is 0,
            patients in ``test`` stay there.
        val: Patients for validation: a number (int) or a fraction of the patients to split (float
            below 1, rounded, at least one patient).
        test: Patients for testing, likewise.
        seed: Seed of the random choice of patients.

    Raises:
        UsageError: a number is invalid, or no patient would be left for training.
    """
    patients = _divisible(manifest, keep_test=not test)
    counts = {"test": _count(test, len(patients), "test"), "val": _count(val, len(patients), "val")}
    if sum(counts.values()) >= len(patients):
        raise wrong(
            f"{counts['val']} patients for val and {counts['test']} for test leave none of "
            f"{len(patients)} for training",
            manifest.name,
            "choose smaller numbers",
            "splits",
        )
    order = _proportional(patients, seed)
    chosen: dict[str, Split] = dict.fromkeys(order, "train")
    chosen |= dict.fromkeys(order[: counts["test"] + counts["val"]], "val")
    chosen |= dict.fromkeys(order[: counts["test"]], "test")
    return _divided(manifest, chosen)


def folds(
    manifest: Manifest, k: int, seed: int, present: Mapping[str, Collection[str]] | None = None
) -> tuple[Manifest, ...]:
    """Manifests for k-fold cross-validation: in each, another k-th of the patients is val, the rest train.

    Patients in ``test`` stay there in all of them; previous train and val splits are replaced. In
    every group the number of patients per fold differs by at most one, and so does, if ``present`` is given,
    the number of its patients with the rarest label; within those, that of patients with the second rarest
    label, and so on. The order of cases has no effect.

    Args:
        manifest: Manifest whose splits are replaced.
        k: Number of folds.
        seed: Seed of the random choice of patients.
        present: Names of the labels that occur in each case, by case id.

    Raises:
        UsageError: k is below 2 or above the number of patients.
    """
    patients = _divisible(manifest, keep_test=True)
    if not 2 <= k <= len(patients):
        raise wrong(
            f"cannot make {k} folds of {len(patients)} patients",
            manifest.name,
            f"choose a number from 2 to {len(patients)}",
            "folds",
        )
    # Dealt group by group: in the order of _proportional a fold could consist of a single group.
    patterns = _label_patterns(manifest, patients, present or {})
    order = sorted(patients, key=lambda each: (patients[each], patterns[each], _draw(each, seed)))
    splits: list[dict[str, Split]] = [
        {patient: "val" if number % k == fold else "train" for number, patient in enumerate(order)}
        for fold in range(k)
    ]
    return tuple(_divided(manifest, chosen) for chosen in splits)


def _label_patterns(
    manifest: Manifest, patients: Iterable[str], present: Mapping[str, Collection[str]]
) -> dict[str, tuple[bool, ...]]:
    """For each patient whether each label occurs in a case, the rarest label first."""
    found: dict[str, set[str]] = {patient: set() for patient in patients}
    for case in manifest.cases:
        if case.patient in found:
            found[case.patient] |= set(present.get(case.id, ()))
    counts = Counter(label for labels in found.values() for label in labels)
    rarest = sorted(counts, key=lambda label: (counts[label], label))
    return {patient: tuple(label in labels for label in rarest) for patient, labels in found.items()}


def _divisible(manifest: Manifest, *, keep_test: bool) -> dict[str, str]:
    """The group of each patient with a label; the first in alphabetical order if there are several."""
    kept = {case.patient for case in manifest.cases if case.split == "test"} if keep_test else set()
    groups: dict[str, str] = {}
    for case in manifest.cases:
        if case.label is not None and case.patient not in kept:
            group = case.group or ""
            groups[case.patient] = min(groups.get(case.patient, group), group)
    return groups


def _count(wanted: float | int, patients: int, name: str) -> int:
    if isinstance(wanted, bool) or not wanted >= 0 or (isinstance(wanted, float) and wanted >= 1):
        raise wrong(
            f"{name} is {wanted!r}", name, "give a number of patients, or a fraction below 1", "splits"
        )
    if isinstance(wanted, int):
        return wanted
    return max(1, round(wanted * patients)) if wanted else 0


def _draw(patient: str, seed: int) -> str:
    # A hash rather than a shuffle: it does not depend on the order and is the same on every platform.
    return hashlib.sha256(f"{seed}\n{patient}".encode()).hexdigest()


def _proportional(groups: dict[str, str], seed: int) -> list[str]:
    """Patients in an order whose first n, for any n, represent the groups in proportion.

    The i-th patient (from 0) of a group of size s has position (i + 1/2) / s: taking the first n is
    the Sainte-Laguë method of allocating n seats to groups of these sizes.
    """
    sizes, seen = Counter(groups.values()), Counter[str]()
    places: list[tuple[float, str, str]] = []
    for patient in sorted(groups, key=lambda patient: _draw(patient, seed)):
        group = groups[patient]
        places.append(((seen[group] + 0.5) / sizes[group], _draw(patient, seed), patient))
        seen[group] += 1
    return [patient for _, _, patient in sorted(places)]


def _divided(manifest: Manifest, chosen: dict[str, Split]) -> Manifest:
    def split(case: Case) -> Split | None:
        if case.patient not in chosen:
            return "test" if case.split == "test" else None
        return chosen[case.patient] if case.label is not None or chosen[case.patient] == "test" else None

    cases = tuple(case.model_copy(update={"split": split(case)}) for case in manifest.cases)
    return replace(manifest, cases=cases)
