"""A zip archive that a client sent, unpacked within the limits of an upload."""

from __future__ import annotations

import secrets
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from medseg.errors import InputRefused, MedsegError, UsageError
from medseg.io.dicom import signature
from medseg.serving.limits import Limits
from medseg.serving.uploads import UploadedFile, suffix_of

_CHUNK_BYTES = 1 << 20
# zipfile unpacks the others a whole member at a time, whatever its size.
_BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def is_archive(upload: UploadedFile) -> bool:
    """Whether a client called it a zip archive."""
    return upload.name.lower().endswith(".zip")


def unpack(archive: Path, folder: Path, limits: Limits) -> Path:
    """The scan in an archive: its image file, or ``folder`` with its DICOM files; the archive is removed.

    Names within it are not used. Directories, hidden files and files of other kinds are left out.

    Args:
        archive: The file, in ``folder``.
        folder: A temporary folder.
        limits: What may be sent; it holds for the unpacked files as well.

    Raises:
        InputRefused: it unpacks to more than that (``upload-size``).
        UsageError: it is damaged or encrypted, or holds no scan (``upload-format``).
    """
    left, made = limits.upload_bytes, 0
    images: list[Path] = []
    try:
        with zipfile.ZipFile(archive) as content:
            members = [one for one in content.infolist() if not one.is_dir() and not _is_hidden(one.filename)]
            if len(members) > limits.files:
                raise _too_much(f"more than {limits.files} files")
            for number, member in enumerate(members):
                if member.compress_type not in _BOUNDED:
                    raise _unusable(f"the archive is packed by method {member.compress_type}, not by deflate")
                path = folder / f"{number:05d}-{secrets.token_hex(8)}{_suffix(member.filename)}"
                with content.open(member) as source, path.open("xb") as out:
                    while part := source.read(_CHUNK_BYTES):
                        left -= len(part)
                        if left < 0:
                            raise _too_much(f"more than {limits.upload_bytes / (1 << 20):.0f} MB")
                        out.write(part)
                if path.suffix == ".dcm" and not signature.is_dicom(path):
                    path.unlink()
                    continue
                made += 1
                images += [path] if path.suffix != ".dcm" else []
    except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError) as error:
        raise _unusable(f"cannot unpack the archive ({type(error).__name__})") from None
    finally:
        archive.unlink(missing_ok=True)
    if not made or len(images) > 1 or (images and made > 1):
        raise _unusable("the archive holds no scan, or several")
    return images[0] if images else folder


def _suffix(name: str) -> str:
    try:
        return suffix_of(name)
    except MedsegError:
        return ".dcm"


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


def _too_much(what: str) -> InputRefused:
    return InputRefused(
        f"the archive unpacks to {what}",
        remedy="send one series, or start the server with a larger --max-upload",
        reason="upload-size",
    )


def _unusable(problem: str) -> UsageError:
    return UsageError(
        problem, remedy="send a zip of one DICOM series, or one NIfTI file", reason="upload-format"
    )
