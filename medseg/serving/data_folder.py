"""The scans of the server: those of a data folder, and those that clients send."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from medseg.batch_processing.case_discovery import items
from medseg.datasets.manifest import Case
from medseg.errors import UsageError
from medseg.io import formats, read, write
from medseg.serving.uploads import UploadedFile, suffix_of
from medseg.system.atomic_write import replacing
from medseg.system.notices import collect_notices
from medseg.system.output_folder import make_output_folder

_SCANS = "scans"


@dataclass(frozen=True)
class ServedImage:
    """A scan that clients may ask for.

    Attributes:
        id: Name that clients use.
        path: File or DICOM folder.
        patient: Id of the patient; the id of the scan if it is unknown.
    """

    id: str
    path: Path
    patient: str


class DataFolder:
    """The scans by id. Clients name scans by these ids only, never by paths.

    Args:
        source: A folder of scans, or a manifest; None for none.
        output: Folder for what the server writes; None if nothing is kept.
        temporary: Folder that is removed when the server ends.

    Raises:
        UsageError: ``source`` is not there, or cannot be read.
    """

    def __init__(self, source: Path | None, output: Path | None, temporary: Path) -> None:
        self.source, self.output, self._temporary = source, output, temporary
        self._images: dict[str, ServedImage] = {}
        self._downloads: dict[str, Path] = {}
        self._digests: dict[str, str] = {}
        for image in [*_found(source, output), *_kept(output)]:
            self._images.setdefault(image.id, image)

    def ids(self) -> tuple[str, ...]:
        """Ids of all scans, in order."""
        return tuple(self._images)

    def image(self, name: str) -> ServedImage:
        """The scan of an id.

        Raises:
            UsageError: there is none (``no-such-image``).
        """
        found = self._images.get(name)
        if found is None:
            raise UsageError(
                f"no scan has the id {name[:80]!r}",
                remedy="GET /datastore/?output=all lists the ids",
                reason="no-such-image",
            )
        return found

    def add(self, name: str, upload: UploadedFile) -> ServedImage:
        """Keeps a scan that a client sends: in the output folder, or until the server ends.

        Args:
            name: Its id.
            upload: The file; it is moved.

        Raises:
            UsageError: the id is not usable as a file name (``params``), or another scan has it
                (``image-exists``).
            InputRefused: it is not a scan that can be read.
        """
        checked_id(name)
        known = self._images.get(name)
        if known is not None:
            if known.path.is_file() and self.digest(known) == upload.sha256:
                return known
            raise UsageError(
                f"another scan has the id {name[:80]!r}",
                remedy="rename the volume and send it again",
                reason="image-exists",
            )
        if name.casefold() in {each.casefold() for each in self._images}:  # one file on Windows and macOS
            raise UsageError(
                f"another scan has the id {name[:80]!r} but for upper and lower case",
                remedy="rename the volume and send it again",
                reason="image-exists",
            )
        with collect_notices():
            read(upload.path)
        folder = (self.output or self._temporary) / _SCANS
        make_output_folder(folder)
        path = folder / f"{name}{suffix_of(upload.path.name)}"
        _move(upload.path, path)
        image = ServedImage(name, path, name)
        self._images[name] = image
        return image

    def download(self, image: ServedImage) -> Path:
        """A file with the scan: its own, or a NIfTI file made from a DICOM series."""
        ending = formats.ending(image.path)
        if image.path.is_file() and ending in (".nii.gz", ".nii", ".nrrd", ".mha"):
            return image.path
        made = self._downloads.get(image.id)
        if made is None:
            with collect_notices():
                made = write(read(image.path), self._temporary / f"{image.id}.nii.gz", flush=False)
            self._downloads[image.id] = made
        return made

    def digest(self, image: ServedImage) -> str:
        """Hexadecimal SHA-256 of the file, or of the files of a series in the order of their names."""
        if image.id not in self._digests:
            path, total = image.path, hashlib.sha256()
            files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
            for each in files:
                with each.open("rb") as file:
                    while block := file.read(1 << 20):
                        total.update(block)
            self._digests[image.id] = total.hexdigest()
        return self._digests[image.id]


def checked_id(name: str) -> str:
    """The id, if it can be the name of a file.

    Raises:
        UsageError: it cannot (``params``).
    """
    try:
        return Case(id=name, images=(Path("x"),)).id
    except ValueError:
        raise UsageError(
            f"{name[:80]!r} cannot be the name of a file",
            remedy="use letters, digits, '-' and '_'",
            reason="params",
        ) from None


def _found(source: Path | None, output: Path | None) -> list[ServedImage]:
    if source is None:
        return []
    try:
        with collect_notices():
            found = items(source, without=output)
    except UsageError as error:
        if error.reason != "no-cases" or not source.is_dir():
            raise
        return []  # scans may be sent
    single = [each for each in found if each.error is None and len(each.images) == 1]
    return [ServedImage(each.id, each.images[0], each.patient or each.id) for each in single]


def _kept(output: Path | None) -> list[ServedImage]:
    """The scans that clients have sent to an earlier server."""
    folder = None if output is None else output / _SCANS
    if folder is None or not folder.is_dir():
        return []
    paths = sorted(path for path in folder.iterdir() if formats.ending(path) in formats.SUFFIXES)
    return [ServedImage(formats.stem(path), path.absolute(), formats.stem(path)) for path in paths]


def _move(source: Path, target: Path) -> None:
    """Moves a file to another disk, too; it appears complete or not at all."""
    with replacing(target) as fresh:
        shutil.copyfile(source, fresh)
    source.unlink()
