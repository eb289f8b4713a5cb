"""Prepared cases on disk.

An entry of the cache is a folder named after the digest of everything that determines the prepared case.
Its files are compared with their recorded sizes and digests before use, and a damaged entry is made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from medseg.datasets.manifest import Case
from medseg.datasets.validation import Facts, Finding, apply_case_rules, examine, refuse
from medseg.errors import InputRefused, ResourceError, UsageError
from medseg.images.grid import Grid
from medseg.io import is_dicom_mask
from medseg.io.dicom.companions import companion_folders
from medseg.io.dicom.signature import is_dicom
from medseg.io.formats import is_split
from medseg.io.image_files import data_files
from medseg.preprocessing.label_classes import UNKNOWN, LabelClasses
from medseg.preprocessing.preparation import Prepared, prepare
from medseg.recipe import Recipe, digest
from medseg.system.atomic_write import replacing
from medseg.system.notices import notify

# Raise when `prepare` changes its output for an unchanged recipe, so that old entries are not used.
CACHE_VERSION = 3
# Raise when the files of an entry change, but not what they hold: entries of another format are made again,
# while trainings recognise their cases.
CACHE_FORMAT = 2
_FOREGROUND_VOXELS = 10_000
_DIGESTS = "digests.json"
_FILES = {"image.npy", "label.npy", "table.npy", "grid.json"}


@dataclass(frozen=True)
class CachedCase:
    """A prepared case on disk, whose arrays are memory-mapped on access.

    Attributes:
        id: Id of the case.
        folder: Folder with image.npy, label.npy (the class of each voxel), table.npy (what classes mean),
            foreground_<label>.npy, facts.json, grid.json, and digests.json with the sizes and digests of the
            others.
    """

    id: str
    folder: Path

    @property
    def digest(self) -> str:
        """Hexadecimal digest of the case's files and of its preparation."""
        return self.folder.name.split("-")[0]

    @cached_property
    def _facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads((self.folder / "grid.json").read_text())
        return facts

    def load(self) -> Prepared:
        """The prepared case; its arrays are mapped copy-on-write, so that changes never reach the files."""
        grid = self._facts
        image = np.load(self.folder / "image.npy", mmap_mode="c")
        return Prepared(image, Grid(tuple(grid["shape"]), np.array(grid["affine"])), self.labels())

    def labels(self) -> LabelClasses:
        """The labels, mapped like the image."""
        return LabelClasses(np.load(self.folder / "label.npy", mmap_mode="c"), self._table)

    @cached_property
    def _table(self) -> npt.NDArray[np.int8]:
        table: npt.NDArray[np.int8] = np.load(self.folder / "table.npy")
        return table

    def facts(self) -> Facts:
        """Measurements of the original files, for comparing cases."""
        return Facts.model_validate_json((self.folder / "facts.json").read_text())

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels of the prepared scan along each axis."""
        x, y, z = self._facts["shape"]
        return x, y, z

    def minimum(self) -> torch.Tensor:
        """Smallest value of each scan channel, float32 (C,), with which the sliding window pads."""
        return torch.tensor(self._facts["minimum"], dtype=torch.float32)

    def foreground(self, label: int) -> npt.NDArray[np.int32]:
        """int32 (n, 3), voxels of a label. A label with more than 10,000 has a random sample of them."""
        voxels: npt.NDArray[np.int32] = np.load(self.folder / f"foreground_{label}.npy", mmap_mode="r")
        return voxels

    @cached_property
    def present_labels(self) -> tuple[int, ...]:
        """Indices of the labels that have any voxel in this case."""
        return tuple(label for label in range(self._table.shape[1]) if len(self.foreground(label)))


def cached(case: Case, recipe: Recipe, folder: Path) -> CachedCase:
    """The prepared case, made now or found in the cache.

    Args:
        case: A case with a label.
        recipe: Defines the preparation.
        folder: Folder of the cache. The key of a case is a digest of the content of its files and of the
            part of the recipe that determines the prepared tensors.

    Raises:
        InputRefused: `medseg check` finds an error in the case (``data-errors``): the scan or its truth
            cannot be read, they lie on different grids, or their values are implausible.
        UsageError: the case has no label (``no-label``).
    """
    if case.label is None:
        raise UsageError(
            "a training case needs a label",
            where=case.id,
            remedy="add it to the manifest",
            reason="no-label",
        )
    annotated = case.annotated
    known = {label.name for label in recipe.labels} if annotated is None else set(annotated)
    names = [label.name for label in recipe.labels]
    key = digest(
        {
            "version": CACHE_VERSION,
            "prepare": recipe.prepare.model_dump(mode="json"),
            "channels": len(recipe.channels),
            "labels": [label.values for label in recipe.labels],
            "ignored": recipe.ignore_value,
            "unknown": [label.name not in known for label in recipe.labels],
            "files": [content_digest(path) for path in (*case.images, case.label)],
        }
        # Before 2, what resampling leaves of each label was counted as if the labels did not compete.
        | ({"exclusive": 2} if recipe.exclusive else {})
        | ({"colours": recipe.colours, "names": names} if recipe.colours else {})
        # Normalised by MONAI, in single precision, before this entry.
        | ({} if recipe.prepare.intensity.kind == "window" else {"normalised": 2})
    )
    place = folder / f"{key}-{CACHE_FORMAT}"
    held = CachedCase(case.id, place)
    if place.exists():
        damage = _damage(place)
        if damage is None:
            refuse(apply_case_rules(case, held.facts(), recipe))
            return held
        notify("cache-damaged", f"the prepared case is damaged and is made again: {damage}", path=place)
        _remove(place)
    examined = examine(case, recipe)
    refuse(examined.findings)
    # Only the reader can give these warnings; all others follow from the facts and are given later.
    report_warnings([each for each in examined.findings if each.code == "reader-warning"])
    prepared = prepare(recipe, examined.volumes, examined.truth)
    assert prepared.classes is not None  # a case without a truth was refused
    table = prepared.classes.table.copy()
    inside = np.arange(len(table)) != prepared.classes.outside_class
    for number, label in enumerate(recipe.labels):
        if label.name not in known:
            table[inside, number] = UNKNOWN
    _store(prepared, LabelClasses(prepared.classes.classes, table), examined.facts, place)
    return held


def content_digest(path: Path) -> str:
    """Hexadecimal SHA-256 of a file and the files read with it, or of a folder's files in name order.

    Raises:
        InputRefused: the path does not exist (reason ``not-found``).
    """
    if not path.exists():
        raise InputRefused("no such file", where=path, remedy="correct the manifest", reason="not-found")
    total = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    if path.is_file() and is_dicom(path) and not is_dicom_mask(path):  # one file stands for the whole series
        folders = (path.parent, *companion_folders(path))
        files = [p for folder in folders for p in sorted(folder.iterdir()) if p.is_file()]
    elif is_split(path):  # the voxels are in another file
        stem = path.name.split(".")[0]
        beside = {p for p in path.parent.iterdir() if p.is_file() and p.name.split(".")[0] == stem}
        files = sorted(beside | set(data_files(path)))
    for file in files:
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def report_warnings(findings: Sequence[Finding]) -> None:
    """Gives notice of all findings that are warnings, in one line per kind."""
    by_code: dict[str, list[Finding]] = {}
    for each in findings:
        if each.severity == "warning":
            by_code.setdefault(each.code, []).append(each)
    for alike in by_code.values():
        more = f" (and {len(alike) - 1} more cases)" if len(alike) > 1 else ""
        first = alike[0]
        text = f"{first.code}: {first.problem} → {first.remedy}{more}"
        notify(first.code, text, path=first.case or "all cases")


def _store(prepared: Prepared, labels: LabelClasses, facts: Facts, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=place.parent, prefix=".making-"))
    try:
        np.save(temporary / "image.npy", prepared.image)
        np.save(temporary / "label.npy", labels.classes)
        np.save(temporary / "table.npy", labels.table)
        _save_foreground(labels, temporary)
        grid = {
            "shape": list(prepared.grid.shape),
            "affine": prepared.grid.affine.tolist(),
            "minimum": prepared.image.min(axis=(1, 2, 3)).tolist(),
        }
        (temporary / "facts.json").write_text(facts.model_dump_json())
        (temporary / "grid.json").write_text(json.dumps(grid))
        _write_digests(temporary)
        try:
            temporary.replace(place)
        except OSError:
            if not (place / "grid.json").is_file():  # otherwise another process was faster
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _save_foreground(labels: LabelClasses, folder: Path) -> None:
    """Saves voxels of each label, at most 10,000, as possible centres of patches."""
    for number, box in enumerate(labels.boxes()):
        voxels = np.empty((0, 3), np.int32)
        if box is not None:
            inside = (labels.table[:, number] == 1)[labels.classes[box]]
            corner = np.array([side.start for side in box], np.int32)
            voxels = np.argwhere(inside).astype(np.int32) + corner
        if len(voxels) > _FOREGROUND_VOXELS:
            # At random: every n-th voxel would favour some slices if n divides the size of the label.
            chosen = np.random.default_rng(number).choice(len(voxels), _FOREGROUND_VOXELS, replace=False)
            voxels = voxels[np.sort(chosen)]
        with replacing(folder / f"foreground_{number}.npy", flush=False) as fresh, fresh.open("wb") as file:
            np.save(file, voxels)


def _write_digests(folder: Path) -> None:
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name != _DIGESTS]
    facts = {path.name: _facts_of(path) for path in files}
    with replacing(folder / _DIGESTS, flush=False) as fresh:
        fresh.write_text(json.dumps(facts))


def _facts_of(path: Path) -> dict[str, object]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _damage(place: Path) -> str | None:
    """What is wrong with an entry of the cache, in words; None for an intact one.

    An entry without digests is from an earlier version. It is completed if its files can be read.
    """
    try:
        if not (place / _DIGESTS).exists():
            try:
                _complete(place)
            except ResourceError:  # a cache that is read-only, or full: usable as it is
                return None
        recorded = json.loads((place / _DIGESTS).read_text())
        if not isinstance(recorded, dict) or not recorded.keys() >= _FILES:
            return f"{_DIGESTS} is incomplete"
        for name, facts in recorded.items():
            path = place / Path(name).name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != facts["bytes"]:
                return f"{name} has {path.stat().st_size} bytes instead of {facts['bytes']}"
            if _facts_of(path) != facts:
                return f"{name} has another digest than when it was written"
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        return f"it cannot be read ({' '.join(str(error).split())[:100]})"
    return None


def _complete(place: Path) -> None:
    """Adds digests, and random samples of foreground voxels, to an entry of an earlier version.

    Raises:
        OSError, ValueError, KeyError, EOFError: the entry is damaged.
    """
    held = CachedCase("", place)
    prepared, labels, _ = held.load(), held.labels(), (held.facts(), held.minimum())
    if not prepared.image.shape[1:] == labels.classes.shape == prepared.grid.shape:
        raise ValueError("image, label and grid have different shapes")
    _save_foreground(labels, place)
    _write_digests(place)


def _remove(place: Path) -> None:
    """Removes an entry in one step, because other processes may look for it."""
    with (
        tempfile.TemporaryDirectory(
            dir=place.parent, prefix=".damaged-", ignore_cleanup_errors=True
        ) as trash,
        contextlib.suppress(FileNotFoundError),
    ):  # another process was faster
        place.replace(Path(trash) / "entry")
