"""Scans in a folder, at any depth: image files and DICOM series, but no masks, doses or pictures.

Pictures (PNG, JPEG, TIFF) are the scans of a folder that holds no others.
"""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medseg.io import formats
from medseg.io.dicom import signature
from medseg.io.dicom.companions import Identity, SeriesFolder, companion_folders, grouped, identity
from medseg.io.overwrite_guard import has_own_sidecar
from medseg.system.folder_walk import DANGLING
from medseg.system.notices import notify

_OUTPUTS = ("masks", "overlays", "probabilities", "per_label", "dicom")
"""Subfolders that a batch or an evaluation writes."""

_EXAMPLES = 3


@dataclass
class FolderSearch:
    """The scans of a folder, and what was left out.

    Attributes:
        folder: The folder to search.
        without: A folder that is not searched; None if there is none.
        pictures: Pictures, which are scans if there are no others.
        bystanders: Files that are not scans to segment: masks, doses, scouts, pictures.
        not_searched: Folders and files that cannot be entered or read, with the reason.
    """

    folder: Path
    without: Path | None = None
    pictures: list[Path] = field(default_factory=list)
    bystanders: list[Path] = field(default_factory=list)
    not_searched: list[str] = field(default_factory=list)

    def scans(self) -> list[tuple[str, Path]]:
        """Name and absolute path of every scan; each DICOM series once.

        Links to folders are followed unless they lead back into the folder, or where a link led before. All
        that is left out is named in one notice each: ``bystanders`` and ``not-searched``.
        """
        found = list(self._walk())
        if not found:
            scans = [path for path in self.pictures if self._is_scan_file(path)]
            found = [(self._name(path.with_suffix("")), absolute(path)) for path in scans]
        if self.bystanders:
            text = f"not scans to segment: {_counted(self.bystanders)}"
            notify("bystanders", text, path=self.folder)
        if self.not_searched:
            notify("not-searched", f"not searched: {_counted(self.not_searched)}", path=self.folder)
        return found

    def _walk(self) -> Iterator[tuple[str, Path]]:
        found: list[tuple[str, Path] | SeriesFolder] = []
        deepest: set[Path] = set()
        for top, names in self._folders(deepest):
            found += self._in_folder([top / name for name in sorted(names) if not name.startswith(".")])
        series = [each for each in found if isinstance(each, SeriesFolder)]
        places = {each.first: place for each, place in self._series_places(series, deepest)}
        for each in found:
            if not isinstance(each, SeriesFolder):
                yield each
            elif each.first in places:
                yield places[each.first]

    def _folders(self, deepest: set[Path]) -> Iterator[tuple[Path, list[str]]]:
        """All folders with the names of their files; those without subfolders are added to ``deepest``."""
        root = os.path.realpath(self.folder)
        outside = None if self.without is None else os.path.realpath(self.without)
        entered = {root}

        def unreadable(error: OSError) -> None:
            self.not_searched.append(f"{error.filename} ({error.strerror})")

        for top, folders, names in os.walk(self.folder, followlinks=True, onerror=unreadable):
            if not folders:
                deepest.add(Path(top))
            own = _output_folders(Path(top), names)
            kept = []
            for name in sorted(folders):
                path = Path(top, name)
                place = os.path.realpath(path)
                if name.startswith(".") or place == outside:
                    continue
                if name in own:
                    self.bystanders.append(path)
                elif path.is_symlink() and (place in entered or _is_below(place, root)):
                    self.not_searched.append(f"{path} (a link to a folder that is searched anyway)")
                elif place not in entered:
                    entered.add(place)
                    kept.append(name)
            folders[:] = kept
            yield Path(top), names

    def _in_folder(self, paths: Sequence[Path]) -> Iterator[tuple[str, Path] | SeriesFolder]:
        """The image files in one folder by name and path, and the series in it."""
        series: dict[str, list[tuple[Path, Identity]]] = {}
        damaged: list[Path] = []
        for path in paths:
            if formats.ending(path):
                if formats.is_image(path) and self._is_scan_file(path):
                    yield self._name(path.with_name(formats.stem(path))), absolute(path)
            elif path.is_symlink() and not path.exists():
                self.not_searched.append(f"{path} ({DANGLING})")
            elif path.is_file() and path.name != "DICOMDIR":
                try:
                    known = identity(path)
                    if known is None and signature.is_dicom(path):
                        self.bystanders.append(path)
                    elif known is None and formats.picture_ending(path):
                        self.pictures.append(path)
                except Exception:  # pydicom raises all kinds of errors for damaged files
                    damaged.append(path)
                    continue
                if known is not None:
                    series.setdefault(known.series, []).append((path, known))
        # If there is a series, its reader reports the damaged files beside it.
        for path in () if series else damaged:
            yield self._name(path.with_name(formats.stem(path))), absolute(path)
        for files in series.values():
            yield SeriesFolder(files[0][0], frozenset(known for _, known in files))

    def _series_places(
        self, series: Sequence[SeriesFolder], deepest: set[Path]
    ) -> Iterator[tuple[SeriesFolder, tuple[str, Path]]]:
        """Name and path of each series, by its first folder.

        A series in several folders (DIR000, DIR001 ...) has the path of their common folder if that holds
        nothing else; otherwise that of its first file, which stands for the series in folders beside, in or
        around its own. Where neither holds, the parts are cases of their own, with a notice.
        """
        without = None if self.without is None else self.without.resolve()
        inside = Counter(each.first.parent for each in series)
        for group in grouped(series):
            parents = [each.first.parent for each in group]
            common = Path(os.path.commonpath(parents))
            name, first = self._name(common), absolute(group[0].first)
            tail = f"_{group[0].series[-8:]}"
            if len(group) == 1:
                alone = inside[common] == 1
                place = absolute(common) if alone and common in deepest else first
                yield group[0], (name if alone else name + tail, place)
                continue
            alone = sum(each.first.is_relative_to(common) for each in series) == len(group)
            if alone and not (without is not None and without.is_relative_to(common.resolve())):
                yield group[0], (name, absolute(common))
            elif {absolute(each) for each in parents} <= {first.parent, *companion_folders(first)}:
                yield group[0], (name + tail, first)
            else:
                text = f"series {tail[1:]} lies in {len(group)} folders far apart, among other series:"
                text += " each is a case"
                notify("series-divided", text, path=common)
                for each, parent in zip(group, parents, strict=True):
                    yield each, (self._name(parent) + tail * (inside[parent] > 1), absolute(each.first))

    def _is_scan_file(self, path: Path) -> bool:
        """Whether an image file can be a scan; others are noted."""
        try:
            mode = path.stat().st_mode
        except OSError as error:  # a link that leads nowhere is a case, which fails
            if not path.is_symlink():
                self.not_searched.append(f"{path} ({error.strerror})")
            return path.is_symlink()
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            self.not_searched.append(f"{path} (not a file)")
            return False
        if has_own_sidecar(path):
            self.bystanders.append(path)
            return False
        return True

    def _name(self, path: Path) -> str:
        parts = path.relative_to(self.folder).parts
        return "_".join(parts) or self.folder.resolve().name


def _counted(names: Sequence[object]) -> str:
    examples = ", ".join(map(str, names[:_EXAMPLES]))
    more = len(names) - _EXAMPLES
    return f"{examples} and {more} more" if more > 0 else examples


def absolute(path: Path) -> Path:
    """The absolute path, with links kept: images may be links into a store whose names mean nothing."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def _is_below(place: str, root: str) -> bool:
    return place == root or place.startswith(root.rstrip(os.path.sep) + os.path.sep)


def _output_folders(folder: Path, names: list[str]) -> tuple[str, ...]:
    """The subfolders that a batch wrote, if the folder has its journal."""
    for name in names:
        if name.startswith("journal") and name.endswith(".jsonl"):
            try:
                with (folder / name).open(encoding="utf-8", errors="replace") as file:
                    first = json.loads(file.readline())
            except (OSError, ValueError):
                continue
            if isinstance(first, dict) and first.get("event") in ("start", "interrupted"):
                return _OUTPUTS
    return ()
