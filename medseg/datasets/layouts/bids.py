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
# What tells images of one session apart; what a derivative adds to a name tells nothing of the image.
_ADDED = ("desc", "label", "space", "res", "den", "seg", "atlas", "from", "to", "mode", "hemi")


def matches(folder: Path) -> bool:
    """Whether there are subjects, or the file that every BIDS data set has."""
    return any(p.is_dir() for p in folder.glob("sub-*"))


def find(folder: Path, _: Path) -> Found:
    """Each image of a subject with its label: the same entities, and the suffix where names have it.

    Raises:
        UsageError: an image with two labels, or a label with two images (``layout-ambiguous``).
    """
    every = images(folder, deep=True)
    labels = [p for p in every if _LABEL.search(stem(p))]
    outside = [p for p in every if p not in labels and p.relative_to(folder).parts[0].startswith("sub-")]
    cases: list[Case] = []
    owner: dict[Path, Path] = {}
    for image in outside:
        own = [label for label in labels if _belongs(label, image, outside)]
        if len(own) > 1:
            raise ambiguous(f"{len(own)} labels could be those of this image", image, own)
        for label in own:
            if owner.setdefault(label, image) != image:
                raise ambiguous("2 images could be those of this label", label, (owner[label], image))
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


def _belongs(label: Path, image: Path, outside: list[Path]) -> bool:
    theirs, ours = _entities(label), _entities(image)
    shared = {k: v for k, v in theirs.items() if k not in _ADDED}
    if "sub" not in shared or any(ours.get(key) != value for key, value in shared.items()):
        return False
    # A label that names fewer entities than the image is that image's only if no other fits as well.
    session = [i for i in outside if all(_entities(i).get(k) == v for k, v in shared.items())]
    if len(session) == 1:
        return True
    suffix = stem(image).rsplit("_", 1)[-1]
    return suffix in stem(label).split("_") or f"desc-{suffix}" in stem(label)


def _entities(path: Path) -> dict[str, str]:
    """``sub-01_ses-2_T1w`` as ``{"sub": "01", "ses": "2"}``."""
    return dict(part.split("-", 1) for part in stem(path).split("_") if "-" in part)
