"""BIDS: ``sub-<label>/[ses-<label>/]<kind>/..._<suffix>.nii.gz``, labels below ``derivatives/`` or beside.

Source: Brain Imaging Data Structure 1.10, "File name structure" and "Imaging derivatives"
(discrete segmentations: ``_dseg``, binary masks: ``_mask``; ``_seg`` and ``label-`` are common too).
"""

from __future__ import annotations

import re
from pathlib import Path

from medseg.datasets.layouts.case_naming import Found, ambiguous, images, safe
from medseg.datasets.manifest import Case
from medseg.io.formats import stem

_LABEL = re.compile(r"_(dseg|mask|seg)$|_label-[^_]+_")
# Entities that a derivative adds to a name; they do not identify its image.
_ADDED = ("desc", "label", "space", "res", "den", "seg", "atlas", "from", "to", "mode", "hemi")


def matches(folder: Path) -> bool:
    """Whether there is a folder of a subject."""
    return any(p.is_dir() for p in folder.glob("sub-*"))


def find(folder: Path, _: Path) -> Found:
    """Each image of a subject with its label, matched by entities and, if given, by suffix.

    Raises:
        UsageError: an image has two labels, or a label has two images (``layout-ambiguous``).
    """
    every = images(folder, deep=True)
    labels = [p for p in every if _LABEL.search(stem(p))]
    scans = [p for p in every if p not in labels and p.relative_to(folder).parts[0].startswith("sub-")]
    cases: list[Case] = []
    owner: dict[Path, Path] = {}
    for image in scans:
        own = [label for label in labels if _belongs(label, image, scans)]
        if len(own) > 1:
            raise ambiguous(f"{len(own)} labels could belong to this image", image, own)
        for label in own:
            if owner.setdefault(label, image) != image:
                raise ambiguous("2 images could belong to this label", label, (owner[label], image))
        subject = _entities(image).get("sub", "")
        cases.append(
            Case(
                id=safe(stem(image)),
                patient=f"sub-{subject}",
                images=(image,),
                label=own[0] if own else None,
            )
        )
    paired = tuple(case for case in cases if case.label is not None)
    alone = [case.images[0] for case in cases if case.label is None]
    return Found(paired, (*alone, *(label for label in labels if label not in owner)))


def _belongs(label: Path, image: Path, scans: list[Path]) -> bool:
    theirs, ours = _entities(label), _entities(image)
    shared = {k: v for k, v in theirs.items() if k not in _ADDED}
    if "sub" not in shared or any(ours.get(key) != value for key, value in shared.items()):
        return False
    # A label with fewer entities than the image belongs to it only if no other image matches as well.
    session = [i for i in scans if all(_entities(i).get(k) == v for k, v in shared.items())]
    if len(session) == 1:
        return True
    suffix = stem(image).rsplit("_", 1)[-1]
    return suffix in stem(label).split("_") or f"desc-{suffix}" in stem(label)


def _entities(path: Path) -> dict[str, str]:
    """The entities of a name: ``sub-01_ses-2_T1w`` gives ``{"sub": "01", "ses": "2"}``."""
    return dict(part.split("-", 1) for part in stem(path).split("_") if "-" in part)
