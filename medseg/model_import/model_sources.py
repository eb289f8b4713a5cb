"""Training folders of nnU-Net in a folder or in a zip archive of one."""

from __future__ import annotations

import lzma
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from medseg.errors import ModelRefused, ResourceError
from medseg.inference.safetensors_header import shown
from medseg.model_import.checkpoint import refused

_DEEPEST = 4
_MOST_FOLDERS = 2000
_MOST_ENTRIES = 20_000
_DIRECTORY_BYTES = 8 << 20
_EXPANSION = 50  # JSON shrinks to a tenth, weights hardly
_WANTED = re.compile(
    r"(?:plans|dataset|inference|metadata)\.json|inference\.ya?ml|model\.pt|checkpoint_(?:final|best|latest)\.pth"
)
_DAMAGED = (
    OSError,
    ValueError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")


@dataclass(frozen=True)
class TrainingFolder:
    """A folder that nnU-Net v2 trained in: ``<trainer>__<plans>__<configuration>``.

    Attributes:
        path: The folder, with ``dataset.json`` and ``plans.json``.
        folds: The checkpoint of each fold, by its name (``0`` to ``4``, or ``all``).
    """

    path: Path
    folds: dict[str, Path]

    @property
    def configuration(self) -> str | None:
        """The configuration in its name; None if it has another name."""
        parts = self.path.name.split("__")
        return parts[2] if len(parts) == 3 else None


@contextmanager
def unpacked(source: Path) -> Iterator[Path]:
    """The folder at a path; for a zip archive, a temporary folder with the files that an import needs.

    Raises:
        ModelRefused: not a folder or zip archive (``import-source``); the archive has an entry that leads out
            of it, is a link, appears twice or expands beyond reason (``import-archive``).
        ResourceError: too little room for the files (``disk``).
    """
    if source.is_dir():
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="medseg-import-") as place:
        folder = Path(place)
        try:
            with zipfile.ZipFile(source) as archive:
                _unpack(archive, source, folder)
        except _DAMAGED as error:
            problem = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise refused(
                source, f"not a whole zip archive: {shown(problem[:120])}", "import-archive"
            ) from None
        yield folder


def _unpack(archive: zipfile.ZipFile, source: Path, folder: Path) -> None:
    entries = archive.infolist()
    if len(entries) > _MOST_ENTRIES:
        raise ValueError(f"{len(entries)} entries, at most {_MOST_ENTRIES} are read")
    names = [entry.filename for entry in entries]
    if len({name.casefold() for name in names}) < len(names):
        raise ValueError("two of its entries have the same name")
    for entry in entries:
        _check_entry(entry, source)
    wanted = [each for each in entries if _WANTED.fullmatch(PurePosixPath(each.filename).name)]
    total, packed = (sum(getattr(e, size) for e in wanted) for size in ("file_size", "compress_size"))
    if total > _EXPANSION * packed + (1 << 20) or packed > source.stat().st_size:
        raise refused(source, f"unsafe: {packed} bytes in the archive would become {total}", "import-archive")
    free = shutil.disk_usage(folder).free
    if total > free:
        raise ResourceError(
            f"unpacking takes {total} bytes, there are {free}",
            where=folder,
            remedy="free some room, set TMPDIR, or unpack the archive yourself and give the folder",
            reason="disk",
        )
    for entry in wanted:
        target = folder.joinpath(*PurePosixPath(entry.filename).parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(entry) as packed_file, target.open("xb") as file:
            # An entry gives no more than its header says: zipfile stops there and checks the CRC.
            shutil.copyfileobj(packed_file, file, 1 << 20)


def _check_entry(entry: zipfile.ZipInfo, source: Path) -> None:
    name = entry.filename
    outside = name.startswith(("/", "\\")) or ":" in name or ".." in re.split(r"[/\\]", name)
    if outside or "\\" in name:
        raise refused(
            source,
            f"unsafe: the path of its entry {shown(name)} leads outside the archive",
            "import-archive",
        )
    mode = entry.external_attr >> 16
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise refused(source, f"unsafe: its entry {shown(name)} is a link or device", "import-archive")
    if entry.flag_bits & 1:
        raise refused(source, "the archive is encrypted", "import-archive", "unpack it and give the folder")


def training_folders(folder: Path) -> list[TrainingFolder]:
    """The training folders in a folder, which may be one itself, in the order of their paths.

    Raises:
        ModelRefused: there is none (``import-source``).
    """
    found: list[TrainingFolder] = []
    level, seen = [folder], 0
    for _ in range(_DEEPEST):
        deeper: list[Path] = []
        for each in level:
            seen += 1
            if (each / "plans.json").is_file() and (each / "dataset.json").is_file():
                found.append(TrainingFolder(each, _folds(each)))
            else:
                deeper += [p for p in sorted(each.iterdir()) if p.is_dir() and not p.is_symlink()]
        level = deeper
        if seen + len(level) > _MOST_FOLDERS:
            break
    if not any(each.folds for each in found):
        raise ModelRefused(
            "no training folder of nnU-Net v2: none with plans.json, dataset.json and "
            "fold_X/checkpoint_final.pth",
            where=folder,
            remedy="give the folder <trainer>__<plans>__<configuration>, one above it, or a zip of it",
            reason="import-source",
        )
    return [each for each in found if each.folds]


def _folds(folder: Path) -> dict[str, Path]:
    found = {}
    for name in ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "all"):
        paths = (folder / f"fold_{name}" / checkpoint for checkpoint in CHECKPOINTS)
        path = next((path for path in paths if path.is_file()), None)
        if path is not None:
            found[name] = path
    return found
