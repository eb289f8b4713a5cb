"""Pairs of images and labels whose names do not say which is which: the voxel values do.

- In two neighbouring folders with the same file names: ``bilder/a.nii.gz`` and ``wahrheit/a.nii.gz``.
- In one folder, or in one folder per case: ``a.nii.gz`` and ``a_lunge.nii.gz``, which adds a word.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from medseg.datasets.layouts.case_naming import Found, images, safe
from medseg.datasets.manifest import Case
from medseg.io.formats import is_image, stem
from medseg.io.label_maps import is_label_map
from medseg.system.notices import notify

_SEPARATORS = " ._-"


def find(folder: Path) -> Found:
    """The pairs that the values of their voxels show, with a notice that says which files are labels."""
    found = _side_by_side(folder)
    return found if found.cases else _longer_names(folder)


def _side_by_side(folder: Path) -> Found:
    inner = [p for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith(".")]
    names = {place: {stem(path): path for path in images(place)} for place in inner}
    names = {place: files for place, files in names.items() if files}
    scans = {place: files for place, files in names.items() if is_image(next(iter(files.values())))}
    names = scans or names
    if len(names) != 2 or not set.intersection(*map(set, names.values())):
        return Found(())
    one, other = names
    shared = sorted(names[one].keys() & names[other].keys())
    sure = [is_label_map(names[place][shared[0]]) for place in (one, other)]
    if sure[0] == sure[1]:
        return Found(())
    labels, unlabelled = (one, other) if sure[0] else (other, one)
    _notify(labels, f"the files in {labels.name} are taken as labels by their values")
    cases = [Case(id=safe(n), images=(names[unlabelled][n],), label=names[labels][n]) for n in shared]
    alone = [path for files in names.values() for name, path in files.items() if name not in shared]
    return Found(tuple(cases), tuple(alone))


def _longer_names(folder: Path) -> Found:
    """Pairs within a folder: the name of a label begins with that of its image and adds a word."""
    pairs: dict[str, list[tuple[Path, Path]]] = defaultdict(list)
    every = images(folder, deep=True)
    # In this order the names that begin with that of an image follow it directly.
    ordered = sorted(every, key=lambda path: (path.parent, stem(path)))
    for index, image in enumerate(ordered):
        for other in ordered[index + 1 :]:
            if other.parent != image.parent or not stem(other).startswith(stem(image)):
                break
            added = stem(other)[len(stem(image)) :]
            if added[:1] in _SEPARATORS and added.strip(_SEPARATORS):
                pairs[added].append((image, other))
    sure = {added: each for added, each in pairs.items() if _is_pair(*each[0])}
    if len(sure) != 1:
        return Found(())
    ((added, chosen),) = sure.items()
    _notify(folder, f"files whose name ends in {added} are taken as labels by their values")
    cases = [Case(id=_name(image, folder), images=(image,), label=label) for image, label in chosen]
    taken = {path for pair in chosen for path in pair}
    return Found(tuple(cases), tuple(path for path in every if path not in taken))


def _name(image: Path, folder: Path) -> str:
    return safe("_".join((*image.parent.relative_to(folder).parts, stem(image))))


def _is_pair(image: Path, label: Path) -> bool:
    return is_label_map(label) and not is_label_map(image)


def _notify(path: Path, text: str) -> None:
    notify("labels-by-values", text, path=path, remedy="check the manifest, or name the folder with --labels")
