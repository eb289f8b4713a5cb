"""Pairs of images and labels, matched by name.

- In two neighbouring folders: ``images/a.nii.gz`` and ``labels/a.nii.gz`` (also ``masks``,
  ``Lung_Mask``, ``labelsTr`` ...).
- In one folder: ``a.nii.gz`` and ``a_mask.nii.gz`` (also ``_seg``, ``_label``, ``-label``, ``_gt`` ...).
- In one folder per case, with one image and one label that is named as such: ``case/ct.nii.gz`` and
  ``case/lung_mask.nii.gz``. In deeper folders (``person/visit/ct.nii.gz``) the first is the patient.
- Pictures (PNG, JPEG, TIFF) likewise, if the folder holds no scans.
- Under other names, where the values of the voxels show which files are labels (`pairs_by_values`).
"""

from __future__ import annotations

import re
from pathlib import Path

from medseg.datasets.layouts import pairs_by_values
from medseg.datasets.layouts.case_naming import Found, ambiguous, distinct, images, safe
from medseg.datasets.manifest import Case
from medseg.errors import UsageError
from medseg.io.formats import is_image, stem
from medseg.system.notices import collect_notices

_WORDS = (
    "masks?|seg|dseg|segs|segmentations?|labels?|labelmaps?|gt|ground[ _-]?truth|truth|annotations?"
    "|rois?|lesions?|contours?"
)
_ENDING = re.compile(rf"[ ._-]({_WORDS})$", re.IGNORECASE)
_IS_LABEL = re.compile(rf"(^|[ ._-])({_WORDS})($|[ ._-])", re.IGNORECASE)
_FOLDER_OF_LABELS = re.compile(rf"(^|[ ._-])({_WORDS})(Tr|Ts)?($|[ ._-])", re.IGNORECASE)


def matches(folder: Path) -> bool:
    """Whether any of the arrangements yields a case."""
    with collect_notices():
        return bool(find(folder, folder).cases)


def find(folder: Path, _: Path) -> Found:
    """The pairs of the first arrangement that yields any; names count before values."""
    for arrangement in (_side_by_side, _one_folder, _folder_per_case, pairs_by_values.find):
        found = arrangement(folder)
        if found.cases:
            return found
    return Found(())


def named(scans: Path, labels: Path) -> Found:
    """The images in one folder with the labels of the same names in another."""
    for place in (scans, labels):
        if not place.is_dir():
            raise UsageError("no such folder", where=place, remedy="give the data's folder", reason="layout")
    truths = _by_name(images(labels), labels)
    every = _by_name(images(scans), scans)
    cases = [
        Case(id=safe(stem(image)), images=(image,), label=truths[name])
        for name, image in every.items()
        if name in truths
    ]
    alone = [image for name, image in every.items() if name not in truths]
    return Found(tuple(cases), (*alone, *(path for name, path in truths.items() if name not in every)))


def _side_by_side(folder: Path) -> Found:
    found = {p: images(p) for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith(".")}
    inner = [p for p, files in found.items() if files]
    if any(is_image(found[p][0]) for p in inner):  # pictures beside scans are previews
        inner = [p for p in inner if is_image(found[p][0])]
    labels = [p for p in inner if _FOLDER_OF_LABELS.search(p.name)]
    scans = [p for p in inner if p not in labels]
    if len(labels) != 1 or len(scans) != 1:
        return Found(())
    return named(scans[0], labels[0])


def _one_folder(folder: Path) -> Found:
    every = images(folder)
    labels: dict[str, list[Path]] = {}
    for path in every:
        if _ENDING.search(stem(path)):
            labels.setdefault(_bare(path), []).append(path)
    cases = []
    scans = _by_name([path for path in every if not _ENDING.search(stem(path))], folder)
    for name, image in scans.items():
        own = labels.pop(name, [])
        if len(own) > 1:
            raise ambiguous(f"{len(own)} labels could belong to this image", image, own)
        if own:
            cases.append(Case(id=safe(stem(image)), images=(image,), label=own[0]))
    taken = {case.images[0] for case in cases}
    alone = [image for image in scans.values() if image not in taken]
    return Found(tuple(cases), (*alone, *(path for left in labels.values() for path in left)))


def _folder_per_case(folder: Path) -> Found:
    cases, alone = [], []
    places = sorted({path.parent for path in images(folder, deep=True)} - {folder})
    inner = [place.relative_to(folder).parts for place in places]
    while inner and all(len(parts) > 1 and parts[0] == inner[0][0] for parts in inner):
        inner = [parts[1:] for parts in inner]
    names = distinct([safe("_".join(parts)) for parts in inner])
    for name, parts, place in zip(names, inner, places, strict=True):
        every = images(place)
        labels = [path for path in every if _IS_LABEL.search(stem(path))]
        scans = [path for path in every if path not in labels]
        if len(scans) == 1 and len(labels) == 1:
            patient = name if len(parts) == 1 else safe(parts[0])
            cases.append(Case(id=name, patient=patient, images=(scans[0],), label=labels[0]))
        elif scans and labels:
            raise ambiguous(f"{len(scans)} images and {len(labels)} labels in one folder", place, every)
        else:
            alone += every
    return Found(tuple(cases), tuple(alone))


def _by_name(paths: list[Path], folder: Path) -> dict[str, Path]:
    """The files by the part of the name that an image and its label share."""
    by_name: dict[str, Path] = {}
    for path in paths:
        other = by_name.setdefault(_bare(path), path)
        if other != path:
            raise ambiguous("files with the same name", folder, (other, path))
    return by_name


def _bare(path: Path) -> str:
    """The name without suffix, label ending and nnU-Net's channel number."""
    return re.sub(r"_0000$", "", _ENDING.sub("", stem(path)))
