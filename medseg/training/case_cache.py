"""Prepared cases on disk, and the training patches drawn from them.

Every random choice is a function of (seed, epoch, number of the patch) alone. Therefore the order of the
workers does not matter, and a resumed training sees the patches of an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from medseg.datasets.manifest import Case
from medseg.datasets.validation import Facts, Finding, apply_case_rules, examine, refuse
from medseg.errors import InputRefused, UsageError
from medseg.images.grid import Grid
from medseg.inference.sliding_window import stacked_slices
from medseg.io import is_dicom_mask
from medseg.io.dicom.companions import companion_folders
from medseg.io.dicom.series_reader import is_dicom
from medseg.io.formats import is_split
from medseg.io.image_files import data_files
from medseg.preprocessing.augmentation import augment
from medseg.preprocessing.transforms import UNKNOWN, Prepared, prepare
from medseg.recipe import Recipe, digest
from medseg.system.notices import notify

# Raise when `prepare` changes its output for an unchanged recipe, so that old caches are not used.
CACHE_VERSION = 3
_FOREGROUND_VOXELS = 10_000


@dataclass(frozen=True)
class CachedCase:
    """A prepared case on disk, whose arrays are memory-mapped on access.

    Attributes:
        id: Id of the case.
        folder: Folder with image.npy, label.npy, foreground_<label>.npy, facts.json and grid.json.
    """

    id: str
    folder: Path

    @cached_property
    def _facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads((self.folder / "grid.json").read_text())
        return facts

    def load(self) -> Prepared:
        """The prepared case; its tensors are mapped copy-on-write, so that changes never reach the files."""
        grid = self._facts
        image = torch.from_numpy(np.load(self.folder / "image.npy", mmap_mode="c"))
        label = torch.from_numpy(np.load(self.folder / "label.npy", mmap_mode="c"))
        return Prepared(image, Grid(tuple(grid["shape"]), np.array(grid["affine"])), label)

    def facts(self) -> Facts:
        """Measurements of the original files, for comparing cases."""
        return Facts.model_validate_json((self.folder / "facts.json").read_text())

    def minimum(self) -> torch.Tensor:
        """Smallest value of each scan channel, float32 (C,), with which the sliding window pads."""
        return torch.tensor(self._facts["minimum"], dtype=torch.float32)

    def foreground(self, label: int) -> npt.NDArray[np.int32]:
        """(n, 3) int32 voxels of a label, evenly thinned to at most 10,000; empty without any."""
        voxels: npt.NDArray[np.int32] = np.load(self.folder / f"foreground_{label}.npy", mmap_mode="r")
        return voxels


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
    )
    place = folder / key
    if not (place / "grid.json").is_file():
        examined = examine(case, recipe)
        refuse(examined.findings)
        # Only the reader can give these warnings; all others follow from the facts and are given later.
        report_warnings([each for each in examined.findings if each.code == "reader-warning"])
        prepared = prepare(recipe, examined.volumes, examined.truth)
        assert prepared.label is not None  # a case without a truth was refused
        for label, channel in zip(recipe.labels, prepared.label, strict=True):
            if label.name not in known:
                channel.fill_(UNKNOWN)
        _store(prepared, examined.facts, place)
        return CachedCase(case.id, place)
    held = CachedCase(case.id, place)
    refuse(apply_case_rules(case, held.facts(), recipe))
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


def _store(prepared: Prepared, facts: Facts, place: Path) -> None:
    assert prepared.label is not None  # `cached` prepares no case without a truth
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=place.parent, prefix=".making-"))
    try:
        np.save(temporary / "image.npy", prepared.image.numpy())
        np.save(temporary / "label.npy", prepared.label.numpy())
        for number, channel in enumerate(prepared.label.numpy()):
            voxels = np.argwhere(channel == 1).astype(np.int32)
            thinned = voxels[:: max(1, -(-len(voxels) // _FOREGROUND_VOXELS))]
            np.save(temporary / f"foreground_{number}.npy", thinned)
        grid = {
            "shape": list(prepared.grid.shape),
            "affine": prepared.grid.affine.tolist(),
            "minimum": prepared.image.flatten(1).amin(1).tolist(),
        }
        (temporary / "facts.json").write_text(facts.model_dump_json())
        (temporary / "grid.json").write_text(json.dumps(grid))
        try:
            temporary.replace(place)
        except OSError:
            if not (place / "grid.json").is_file():  # otherwise another process was faster
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class Sample(TypedDict):
    """A training patch: float32 ``image`` (in_channels, *patch) and ``label`` (L, *patch).

    ``label`` is 1, 0 or -1 (unknown). ``case`` is the id of its case, and ``seed`` determines its
    augmentation.
    """

    image: torch.Tensor
    label: torch.Tensor
    case: str
    seed: int


class Patches(Dataset[Sample]):
    """Training patches, indexed by (epoch, number).

    A fraction ``foreground_fraction`` of them is centred on a voxel of a label, every label equally
    often; the others lie anywhere. Every case is used equally often.

    Args:
        cases: Prepared cases to cut the patches from.
        recipe: Defines the size, choice and augmentation of the patches.
        augmented: Whether they are augmented here; otherwise :meth:`augmented_patch` does it later.
    """

    def __init__(self, cases: Sequence[CachedCase], recipe: Recipe, *, augmented: bool = True) -> None:
        self.cases = tuple(cases)
        self.recipe = recipe
        self.augmented = augmented
        self._augmentation = augment(recipe)

    def __getitem__(self, at: tuple[int, int]) -> Sample:
        """The patch of this number in this epoch."""
        epoch, number = at
        seed = self.recipe.train.seed
        rng = np.random.default_rng([seed, epoch, number])
        order = np.random.default_rng([seed, epoch]).permutation(len(self.cases))
        case = self.cases[order[number % len(self.cases)]]
        image, label = self._cut(case, rng)
        patch = Sample(image=image, label=label, case=case.id, seed=int(rng.integers(2**31)))
        return self.augmented_patch(patch) if self.augmented else patch

    def augmented_patch(self, patch: Sample) -> Sample:
        """The patch after augmentation, on its own device."""
        self._augmentation.set_random_state(seed=patch["seed"])
        changed = self._augmentation({"image": patch["image"], "label": patch["label"]})
        image, label = (torch.as_tensor(changed[key]).contiguous() for key in ("image", "label"))
        return Sample(image=image, label=label, case=patch["case"], seed=patch["seed"])

    def _cut(self, case: CachedCase, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        prepared = case.load()
        assert prepared.label is not None  # cached cases always have one
        shape = prepared.image.shape[1:]
        centre = self._centre(case, shape, rng)
        size = self.recipe.patch.size
        if self.recipe.spatial_dims == 2:
            neighbours = self.recipe.patch.neighbours
            image = stacked_slices(prepared.image, int(centre[2]), neighbours)
            label = prepared.label[..., int(centre[2])]
        else:
            image, label = prepared.image, prepared.label
        at = centre[: len(size)]
        # The channels repeat for each neighbouring slice, and so do their minima.
        low = case.minimum().repeat(len(image) // len(prepared.image))
        return window(image, at, size, fill=low), window(label, at, size, fill=torch.zeros(len(label)))

    def _centre(
        self, case: CachedCase, shape: Sequence[int], rng: np.random.Generator
    ) -> npt.NDArray[np.int64]:
        anywhere = rng.integers(0, shape)
        wanted = rng.random() < self.recipe.train.foreground_fraction
        voxels = case.foreground(int(rng.integers(len(self.recipe.labels))))
        row = int(rng.integers(max(len(voxels), 1)))
        return voxels[row].astype(np.int64) if wanted and len(voxels) else anywhere


def window(
    values: torch.Tensor, centre: npt.NDArray[np.int64], size: Sequence[int], *, fill: torch.Tensor
) -> torch.Tensor:
    """A window of an array around ``centre``: float32 (C, *size) of (C, ...).

    A window that would reach beyond the array is moved inside. An array smaller than the window is padded
    on both sides with ``fill``, one value per channel, as the sliding window pads.
    """
    sources, targets = [slice(None)], [slice(None)]
    for n, at, length in zip(values.shape[1:], centre, size, strict=True):
        start = int(np.clip(at - length // 2, 0, max(n - length, 0)))
        sources.append(slice(start, start + min(n, length)))
        before = max(length - n, 0) // 2
        targets.append(slice(before, before + min(n, length)))
    inner = values[tuple(sources)].to(torch.float32)
    if inner.shape[1:] == tuple(size):
        return inner.clone()
    out = fill.reshape(-1, *[1] * len(size)).expand(len(values), *size).clone()
    out[tuple(targets)] = inner
    return out
