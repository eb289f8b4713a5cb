"""Creating manifests from folders of scans and labels, and splitting them by patient."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from medseg.datasets.layouts import manifest_of, named
from medseg.datasets.layouts.totalsegmentator import values_of
from medseg.datasets.manifest import Manifest
from medseg.datasets.splits import folds as divided
from medseg.datasets.splits import with_splits
from medseg.errors import UsageError


def make_manifest(
    source: str | Path,
    *,
    layout: str | None = None,
    labels: str | Path | None = None,
    organs: str | None = None,
    made: str | Path | None = None,
    name: str | None = None,
    only: str | None = None,
) -> Manifest:
    """The manifest of a folder of scans and labels, or of a manifest file.

    Args:
        source: The folder, or a manifest file.
        layout: Layout of the folder, a key of :data:`medseg.datasets.layouts.REGISTRY`; None detects it.
        labels: Folder of the labels, whose files have the names of the images.
        organs: TotalSegmentator organs for the label map: ``heart,aorta`` (values 1, 2), or
            ``heart=1,aorta=1``.
        made: Folder for label maps that have to be created; by default ``SOURCE_labels``.
        name: Name of the manifest; by default that of the folder.
        only: Pattern of the ids to keep, such as ``coronacases_*``.

    Raises:
        UsageError: options exclude each other (``usage``), or as
            :func:`medseg.datasets.layouts.manifest_of` and :meth:`Manifest.read`.

    Example:
        >>> manifest = medseg.make_manifest("dataset", name="phantoms")
        >>> [case.id for case in manifest.cases]
        ['case_0', 'case_1', 'case_2', 'case_3']
    """
    source = Path(source)
    if labels is not None and (layout or organs):
        raise UsageError("--labels excludes --layout and --organs", where="medseg manifest", reason="usage")
    if not source.is_dir() and (labels or layout or organs):
        raise UsageError("--labels, --layout and --organs need a folder", where=source, reason="usage")
    if labels is not None:
        manifest = named(source, Path(labels))
    elif source.is_dir():
        beside = Path(made) if made else source.with_name(f"{source.name}_labels")
        values = values_of(organs) if organs else None
        manifest = manifest_of(source, layout, made=beside, organ_values=values)
    else:
        manifest = Manifest.read(source)
    if name:
        manifest = replace(manifest, name=name)
    if only:
        cases = tuple(case for case in manifest.cases if fnmatchcase(case.id, only))
        manifest = replace(manifest, cases=cases)
    return manifest


def split_manifest(
    manifest: Manifest, *, val: float = 0.0, test: float = 0.0, folds: int = 0, seed: int = 0
) -> tuple[Manifest, ...]:
    """The same cases with new splits by patient: one manifest, or one per fold.

    Args:
        manifest: Manifest to split.
        val: Fraction of patients for validation (below 1), or their number (int).
        test: Fraction or number of patients for testing.
        folds: Number of folds for cross-validation, instead of ``val`` and ``test``.
        seed: Seed of the random choice of patients.

    Raises:
        UsageError: folds and fractions are both given (``usage``), or there are too few patients
            (``splits``).

    Example:
        >>> manifest = medseg.make_manifest("dataset")
        >>> (divided,) = medseg.split_manifest(manifest, val=0.25)
        >>> len(divided.split("train")), len(divided.split("val"))
        (3, 1)
        >>> [len(fold.split("val")) for fold in medseg.split_manifest(manifest, folds=2)]
        [2, 2]
    """
    check_division(val=val, test=test, folds=folds)
    if folds:
        return divided(manifest, folds, seed)
    if val or test:
        return (with_splits(manifest, val=val, test=test, seed=seed),)
    return (manifest,)


def check_division(*, val: float, test: float, folds: int) -> None:
    """Checks that folds and fractions are not combined, before anything is read.

    Raises:
        UsageError: both are given (``usage``).
    """
    if folds and (val or test):
        raise UsageError("--folds excludes --val and --test", where="medseg manifest", reason="usage")
