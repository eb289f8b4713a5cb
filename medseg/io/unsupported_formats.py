"""Recognition of unsupported formats, so that the refusal can name them."""

from __future__ import annotations

from pathlib import Path

from medseg.errors import InputRefused
from medseg.io.formats import METAIMAGE, NIFTI, NRRD, endings

_CONVERT = "convert it to NIfTI with the tool that made it"
_UNPACK = "unpack it and pass the scan in it"

# First bytes, from the specifications of the formats.
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"BM", "a BMP picture"),
    (b"II*\0", "a TIFF picture"),
    (b"MM\0*", "a TIFF picture"),
    (b"\xff\x4f\xff\x51", "a bare JPEG 2000 picture"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"BZh", "data packed by bzip2"),
    (b"\xfd7zXZ\0", "data packed by xz"),
    (b"\x28\xb5\x2f\xfd", "data packed by Zstandard"),
    (b"\x1f\x8b", "data packed by gzip"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (MINC 2, or other scientific data)"),
    (b"CDF\x01", "a NetCDF file (MINC 1, or other scientific data)"),
    (b"CDF\x02", "a NetCDF file (MINC 1, or other scientific data)"),
    (b"\x93NUMPY", "a NumPy array, which has no geometry"),
    (b"\x80\x02", "a Python pickle, which is never opened"),
    (b"\x80\x03", "a Python pickle, which is never opened"),
    (b"\x80\x04", "a Python pickle, which is never opened"),
    (b"\x80\x05", "a Python pickle, which is never opened"),
    (b"MATLAB 5.0", "a MATLAB file"),
    (b"NRRD0", f"an NRRD file: its name should end in {endings(NRRD)}"),
    (b"ObjectType", f"a MetaImage file: its name should end in {endings(METAIMAGE)}"),
    (b"NDims", f"a MetaImage file: its name should end in {endings(METAIMAGE)}"),
    (b"# vtk", "a VTK file"),
    (b"<?xml", "an XML document"),
    (b"<", "an HTML or XML document"),
    (b"{", "a JSON document"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
)
_NIFTI = {b"n+1": 344, b"ni1": 344, b"n+2": 4, b"ni2": 4}
_SUFFIXES = {
    ".mnc": "MINC",
    ".mgz": "FreeSurfer MGH",
    ".mgh": "FreeSurfer MGH",
    ".par": "Philips PAR/REC",
    ".rec": "Philips PAR/REC",
    ".zip": "a ZIP archive",
    ".7z": "a 7z archive",
    ".rar": "a RAR archive",
    ".tar": "a TAR archive",
    ".tar.gz": "a TAR archive",
    ".tgz": "a TAR archive",
    ".zst": "data packed by Zstandard",
    ".bz2": "data packed by bzip2",
    ".xz": "data packed by xz",
    ".head": "AFNI",
    ".brik": "AFNI",
    ".gipl": "GIPL",
    ".pt": "PyTorch weights",
    ".pth": "PyTorch weights",
    ".ckpt": "PyTorch weights",
    ".safetensors": "model weights",
    ".vtk": "VTK",
    ".vti": "VTK",
    ".stl": "a surface mesh",
    ".obj": "a surface mesh",
    ".gii": "a GIFTI surface",
    ".csv": "a table",
    ".bval": "diffusion gradients",
    ".bvec": "diffusion gradients",
}


def name_of(head: bytes, path: Path | None = None) -> str | None:
    """The probable kind of an unreadable file, by its name and its first bytes; None if unknown.

    Args:
        head: The first bytes, up to 540.
        path: The file; only its name is used.
    """
    for mark, at in _NIFTI.items():
        if head[at : at + 3] == mark and head[:1] in (b"\x5c", b"\x1c", b"\0"):
            return f"a NIfTI file: its name should end in {endings(NIFTI)}"
    lower = "" if path is None else path.name.lower()
    by_suffix = next((what for suffix, what in _SUFFIXES.items() if lower.endswith(suffix)), None)
    # The suffix is more specific if formats share a container: .mnc is HDF5, .mgz is gzip.
    if by_suffix is not None:
        return by_suffix
    if head[257:262] == b"ustar":
        return "a TAR archive"
    by_magic = next((what for mark, what in _MAGIC if head.startswith(mark)), None)
    if by_magic is not None:
        return by_magic
    text = head.decode("utf-8", "replace")
    return "a text file" if text and all(c.isprintable() or c in "\r\n\t" for c in text) else None


def refusal(path: Path, head: bytes, known: str) -> InputRefused:
    """The refusal of a file in no known format (``format``).

    Args:
        path: The file.
        head: Its first bytes.
        known: The supported suffixes, as text.
    """
    seems = name_of(head, path)
    packed = seems is not None and ("archive" in seems or "packed" in seems)
    return InputRefused(
        f"this format is not supported: it seems to be {seems}"
        if seems
        else "this format is not supported: neither a DICOM file nor a known suffix",
        where=path,
        remedy=f"{_UNPACK if packed else _CONVERT}; supported are DICOM and {known}",
        reason="format",
    )
