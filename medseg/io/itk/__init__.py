"""NRRD and MetaImage, through SimpleITK.

ITK reads in a worker process, which a damaged file may crash: see `medseg.io.decoder.client`. If a
header lacks orientation, spacing or position, ITK assumes defaults, so the header's text is checked
for them first.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from medseg.errors import InputRefused, ResourceError
from medseg.images.grid import LPS_RAS, Array, Grid
from medseg.images.volume import Mask, Source, Volume, Voxels, whole_numbers
from medseg.io import formats
from medseg.io.affine_checks import plausible, squared
from medseg.io.decoder import client
from medseg.io.error_context import refusing
from medseg.io.gzip_stream import check_promise, truncated, unpacked_size
from medseg.io.itk import text_header
from medseg.io.itk.extra_axes import without_list_axis, without_single_axes
from medseg.io.itk.text_header import TextHeader, numbers
from medseg.io.read_options import DEFAULT_OPTIONS, ReadOptions
from medseg.io.rescaling import rescaled
from medseg.system import memory_budget
from medseg.system.notices import notify

# The spaces that ITK's NRRD reader converts to LPS; it passes others on unconverted.
_NRRD_SPACES = ("left-posterior-superior", "right-anterior-superior", "left-anterior-superior")
_SHORT_SPACES = ("lps", "ras", "las")
# Allowed after the last voxel: padding, less than a slice.
_PADDING_BYTES = 4096
_MOST_LAYERS = 1000


def read_nrrd(path: Path, choices: ReadOptions = DEFAULT_OPTIONS) -> Volume:
    """The scan in a .nrrd or .nhdr file, world RAS+ mm. See :func:`read_metaimage`."""
    return _read(path, choices, "NrrdImageIO", "nrrd", text_header.nrrd, _check_nrrd)


def read_metaimage(path: Path, choices: ReadOptions = DEFAULT_OPTIONS) -> Volume:
    """The scan in a .mha or .mhd file, world RAS+ mm.

    Args:
        path: The file, or the header of a detached data file.
        choices: ``volume`` (1 is the only one) and ``nonfinite``.

    Raises:
        InputRefused: of another format (``format``), damaged or truncated (``unreadable``),
            longer than its header says (``excess``, ``bomb``), without its data file (``not-found``) or
            with one in another folder (``escapes``), not 3D (``not-3d``), several channels or
            volumes (``several-channels``), no such volume (``no-volume``), no orientation,
            spacing, position, anatomical space or millimetres (``no-geometry``), impossible
            ones (``geometry``, ``sheared``), not one finite number per voxel (``pixel-type``,
            ``range``, ``not-finite``), not enough memory (``too-large``), or ITK crashes or
            hangs (``reader-crashed``, ``reader-timeout``).
    """
    return _read(path, choices, "MetaImageIO", "mha", text_header.metaimage, _check_metaimage)


def write(image: Volume | Mask, path: Path) -> None:
    """Writes compressed NRRD or MetaImage, depending on the suffix of ``path``.

    Raises:
        ResourceError: the file is not whole (``disk``): ITK reports no error if the disk is full.
    """
    import SimpleITK as sitk  # noqa: N813 - the alias of its own documentation; 0.4 s to import

    array = image.array
    if array.dtype in (np.dtype(bool), np.dtype(np.float16)):  # ITK has neither
        array = array.astype(np.uint8 if array.dtype == np.dtype(bool) else np.float32)
    itk = as_itk(array, image.grid)
    # ITK knows some suffixes only, in lower case: .MHA would become a header without data.
    known = path.with_name(formats.stem(path) + formats.common_ending(path))
    sitk.WriteImage(itk, str(known), useCompression=True)
    _check_whole(known, path)
    if known != path:
        known.rename(path)


def as_itk(array: Voxels, grid: Grid) -> Any:
    """A ``SimpleITK.Image`` of numbers (X, Y, Z), with a copy of them, in world LPS."""
    import SimpleITK as sitk  # noqa: N813

    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    lps = LPS_RAS @ grid.affine
    spacing = np.asarray(grid.spacing_mm)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    return image


def _check_whole(written: Path, path: Path) -> None:
    """Compares a file that ITK has written with its own header."""
    is_nrrd = formats.SUFFIXES[formats.ending(written) or ""].format is formats.NRRD
    try:
        _check_size((text_header.nrrd if is_nrrd else text_header.metaimage)(written), written)
    except (InputRefused, OSError) as error:
        raise ResourceError(
            "the file could not be written completely",
            where=path,
            remedy="check free space, quotas and limits of file sizes",
            reason="disk",
        ) from error


def _read(
    path: Path,
    choices: ReadOptions,
    imageio: str,
    name: str,
    parsed: Callable[[Path], TextHeader],
    check: Callable[[TextHeader], None],
) -> Volume:
    with refusing(path, f"{name.upper()} file"):
        header = without_single_axes(without_list_axis(parsed(path)))
        _check_axes(header, choices)
        check(header)
        if name == "mha" and "ElementSpacing" not in header.fields:  # as MetaIO does (metaImage.cxx)
            size = header.fields["ElementSize"][:60]
            notify("element-size", f"no ElementSpacing; ElementSize = {size} was used instead", path=path)
        array, grid = _decoded(header, path, imageio, name)
        return Volume(rescaled(array.T, nonfinite=choices.nonfinite, where=path), grid, Source(path, name))


def read_layers(path: Path) -> tuple[list[Voxels], Grid]:
    """The label maps (X, Y, Z) in the layers of an NRRD file, usually one, and their grid.

    Layers lie along a first axis of the kind ``list``, as 3D Slicer stores segments that overlap.

    Raises:
        InputRefused: as :func:`read_nrrd`, or values with a fraction (``mask-dtype``).
    """
    header = without_list_axis(text_header.nrrd(path), most=_MOST_LAYERS)
    if header.channels == 1:
        _check_axes(header, DEFAULT_OPTIONS)
    _check_nrrd(header)
    array, grid = _decoded(header, path, "NrrdImageIO", "nrrd")
    parts = [array] if header.channels == 1 else [array[..., n] for n in range(header.channels)]
    return [whole_numbers(part.T, path) for part in parts], grid


def read_vectors(path: Path) -> tuple[Voxels, Grid] | None:
    """Three numbers per voxel of a MetaImage file, (X, Y, Z, 3), and their grid; None of other contents.

    Raises:
        InputRefused: as :func:`read_metaimage`.
    """
    with refusing(path, "MHA file"):
        header = text_header.metaimage(path)
        if header.channels != 3 or len(header.sizes) != 3:
            return None
        _check_metaimage(header)
        array, grid = _decoded(header, path, "MetaImageIO", "mha")
        return np.moveaxis(array.T, 0, -1), grid


def _decoded(header: TextHeader, path: Path, imageio: str, name: str) -> tuple[Voxels, Grid]:
    """The stored numbers, (Z, Y, X) or (Z, Y, X, channels), as the worker decodes them, and their grid."""
    _check_size(header, path)
    # ITK's image, a copy in this process, and up to 4 bytes per voxel after rescaling.
    bytes_per_voxel = 2 * header.voxel_bytes + 4
    what = f"{' x '.join(map(str, header.sizes))} voxels"
    memory_budget.check(header.data_bytes // header.voxel_bytes * bytes_per_voxel, what, where=path)
    request = {
        "path": str(path.absolute()),
        "imageio": imageio,
        "expected_bytes": header.data_bytes,
        "file_bytes": sum(f.stat().st_size for f in {path, *header.files}),
    }
    failing = f"not a readable {name.upper()} file"
    facts, _ = client.call({**request, "task": "itk_facts"}, what=failing, where=path)
    grid = squared(plausible(_grid(facts, header)), path)
    size = (*header.sizes, *[1] * header.single_axes)
    shape = (*size[::-1], *([header.channels] if header.channels > 1 else []))
    _, array = client.call({**request, "task": "itk_voxels"}, what=failing, where=path, array_shape=shape)
    if array.nbytes != header.data_bytes:
        raise InputRefused(
            f"{array.dtype} voxels, but {header.voxel_bytes} bytes each by the header",
            reason="unreadable",
            remedy="convert the file with the tool that made it",
        )
    return array.reshape(shape[header.single_axes :]), grid


def _grid(facts: dict[str, Any], header: TextHeader) -> Grid:
    """The RAS+ grid from the header as read by ITK."""
    axes = 3 + header.single_axes
    if (
        tuple(facts["size"]) != (*header.sizes, *[1] * header.single_axes)
        or facts["components"] != header.channels
    ):
        raise InputRefused(
            f"the header can be read in two ways: {facts['size']} and {list(header.sizes)} voxels",
            reason="unreadable",
            remedy="convert the file with the tool that made it",
        )
    affine: Array = np.eye(4)
    direction = np.reshape(facts["direction"], (axes, axes))[:3, :3]
    affine[:3, :3] = direction * np.asarray(facts["spacing"][:3])
    affine[:3, 3] = facts["origin"][:3]
    x, y, z = header.sizes
    return Grid((x, y, z), LPS_RAS @ affine)


def _check_axes(header: TextHeader, choices: ReadOptions) -> None:
    """Refuses what is not one 3D channel."""
    dims = " x ".join(map(str, header.sizes))
    if len(header.sizes) < 3:
        raise InputRefused(
            f"{len(header.sizes)}D data of size {dims}, not a 3D volume",
            reason="not-3d",
            remedy="pass the whole scan",
        )
    if len(header.sizes) > 3 or header.channels != 1:
        raise InputRefused(
            f"{len(header.sizes)}D data ({dims}) with {header.channels} number(s) a voxel"
            " where one 3D channel is expected",
            reason="several-channels",
            remedy="export one 3D volume with one number a voxel; segments in layers are a mask (--as-mask)",
        )
    if choices.volume not in (None, 1):
        raise InputRefused(
            f"no volume {choices.volume}: the file has 1", reason="no-volume", remedy="leave --volume out"
        )


def _check_size(header: TextHeader, path: Path) -> None:
    """Compares the size by the header with that of the data files."""
    if header.coding == "text":
        return
    packed = header.coding == "packed"
    check_promise(header.data_bytes, sum(f.stat().st_size for f in header.files), packed=packed)
    held = 0
    for file in header.files:
        size = file.stat().st_size
        offset = header.offset or 0
        if packed:
            held += unpacked_size(file, offset, header.data_bytes + _PADDING_BYTES - held)
        else:
            held += max(0, size - offset)
    excess = held - header.data_bytes
    if excess < 0:
        raise truncated(f"its header promises {header.data_bytes} bytes, its size is {held} bytes")
    if header.offset is None or not excess:
        return
    slice_bytes = header.sizes[0] * header.sizes[1] * header.voxel_bytes
    if packed or excess > max(_PADDING_BYTES, slice_bytes - 1):
        raise InputRefused(
            f"more bytes than the {header.data_bytes} that the header accounts for",
            reason="excess",
            remedy="the header's dimensions are wrong, or data were appended: write the file again",
        )
    notify("trailing-bytes", f"ignored {excess} bytes after the last voxel", path=path)


def _check_nrrd(header: TextHeader) -> None:
    """Refuses an NRRD header with incomplete geometry."""
    fields = header.fields
    space = fields.get("space", "").lower()
    if space not in (*_NRRD_SPACES, *_SHORT_SPACES):
        raise _no_geometry(
            f"the NRRD space is {space[:40] or 'not set'}, so left and right are unknown",
            f"set the field 'space' to {_NRRD_SPACES[0]} or {_NRRD_SPACES[1]}",
        )
    _check_numbers(fields, "space directions", 9)
    _check_numbers(fields, "space origin", 3)
    units = set(fields.get("space units", "mm").replace('"', " ").lower().split())
    if not units <= {"mm", "millimeter", "millimeters", "millimetre", "millimetres"}:
        raise _no_geometry(
            f"the space units are {fields['space units'][:40]}, not millimetres",
            "convert the positions to mm with the tool that made the file",
        )


def _check_metaimage(header: TextHeader) -> None:
    """The same for MetaImage, some of whose fields have several names (MetaIO, metaObject.cxx)."""
    fields = header.fields
    _check_numbers(fields, "TransformMatrix", 9, "Rotation", "Orientation")
    _check_numbers(fields, "Offset", 3, "Position", "Origin")
    spacing = _check_numbers(fields, "ElementSpacing", 3, "ElementSize")
    if min(spacing) <= 0:
        name = "ElementSpacing" if "ElementSpacing" in fields else "ElementSize"
        raise InputRefused(
            f"the voxel spacing is not positive: {name} = {fields[name][:60]}",
            reason="geometry",
            remedy="correct the header: axes are flipped by TransformMatrix",
        )
    if fields.get("DistanceUnits", "mm") not in ("mm", "?"):
        raise _no_geometry(
            f"the distance unit is {fields['DistanceUnits'][:20]}, not millimetres",
            "convert the positions to mm with the tool that made the file",
        )


def _check_numbers(fields: dict[str, str], key: str, count: int, *other_names: str) -> tuple[float, ...]:
    """The numbers of a geometry field, which must be present, complete and finite."""
    found = next((name for name in (key, *other_names) if name in fields), None)
    if found is None:
        raise _no_geometry(
            f"the header has no {key}, so the orientation or position is unknown",
            "export the scan with its geometry",
        )
    values = numbers(fields[found])
    if len(values) != count or not np.isfinite(values).all():
        raise InputRefused(
            f"{found} is not {count} finite numbers: {fields[found][:80]!r}",
            reason="geometry",
            remedy="correct the header, or export the scan again",
        )
    return values


def _no_geometry(problem: str, remedy: str) -> InputRefused:
    return InputRefused(problem, reason="no-geometry", remedy=remedy)
