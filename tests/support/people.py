"""Manifests of made-up patients."""

from __future__ import annotations

from pathlib import Path

from medseg.datasets.manifest import Case, Manifest


def people(n: int, *, scans: int = 1, groups: str = "", test: int = 0) -> Manifest:
    """n patients p0.., each with some scans; group letters in turn; the last ``test`` ones are test."""
    cases = [
        Case(
            id=f"p{p}-{s}",
            patient=f"p{p}",
            images=(Path(f"p{p}-{s}.nii"),),
            label=Path("l.nii"),
            group=groups[p % len(groups)] if groups else None,
            split="test" if p >= n - test else None,
        )
        for p in range(n)
        for s in range(scans)
    ]
    return Manifest("people", tuple(cases))


def patients(manifest: Manifest, split: str) -> set[str]:
    return {case.patient for case in manifest.split(split)}
