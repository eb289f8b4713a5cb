"""Manifests made from folders of scans and labels, and divided by patient."""

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
    """The manifest of a folder of scans and labels, or a manifest file read again.

    Args:
        source: The folder, or a manifest.
        layout: How the folder is laid out, a row of :data:`medseg.datasets.layouts.REGISTRY`; found by
            looking where it is None.
        labels: Folder of the labels, which have the names of the images.
        organs: Of TotalSegmentator, into one label map: ``heart,aorta`` (1, 2), or ``heart=1,aorta=1``.
        made: Folder for label maps that have to be made; ``SOURCE_labels`` by default.
        name: Of the manifest; the folder's by default.
        only: Take the cases whose id is like this, such as ``coronacases_*``.

    Raises:
        UsageError: options that exclude one another (``usage``), as
            :func:`medseg.datasets.layouts.manifest_of`, or as :meth:`Manifest.read`.

    Example:
        >>> manifest = medseg.make_manifest("dataset", name="phantoms")
        >>> [case.id for case in manifest.cases]
        ['case_0', 'case_1', 'case_2', 'case_3']
    """
    source = Path(source)
    if labels is not None and (layout or organs):
        raise UsageError("--labels is a layout of its own", where="medseg manifest", reason="usage")
    if not source.is_dir() and (labels or layout or organs):
        raise UsageError("--labels, --layout and --organs are for folders", where=source, reason="usage")
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
    """The same cases divided anew by patient: one manifest, or one for each fold.

    Args:
        manifest: What to divide.
        val: Share of patients to validate on, below 1, or their number (int).
        test: The same for testing.
        folds: Or so many folds for cross-validation: in each, others of the patients are for validation.
        seed: Decides which patients.

    Raises:
        UsageError: folds and shares are both given (``usage``), or there are too few patients (``splits``).

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
    """Refuses folds and shares together, before anything is read.

    Raises:
        UsageError: both are given (``usage``).
    """
    if folds and (val or test):
        raise UsageError("give --folds, or --val and --test", where="medseg manifest", reason="usage")
