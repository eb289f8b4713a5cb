"""Reading and writing scans and masks of every format.

The readers of DICOM are imported for DICOM files only, because importing pydicom takes long.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from medseg.errors import InputRefused, UsageError
from medseg.images.channel_grids import on_first_grid
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.volume import Mask, Source, Volume, whole_numbers
from medseg.io import formats, nifti, path_checks, unsupported_formats
from medseg.io.dicom import signature, sop_classes
from medseg.io.dicom.segments import Segment
from medseg.io.formats import DICOM_FORMATS, FORMATS, PICTURES, Format
from medseg.io.itk import slicer_segments
from medseg.io.output_checks import check_writable
from medseg.io.picture import masks as picture_masks
from medseg.io.picture import reader as picture_reader
from medseg.io.picture.masks import DEFAULT_CODING, MaskCoding
from medseg.io.read_options import DEFAULT_OPTIONS, ReadOptions, Trust
from medseg.system import atomic_write


def read(
    path: str | Path,
    *,
    series: str | int | None = None,
    volume: int | None = None,
    trust: Trust | None = None,
    nonfinite: float | None = None,
    pixel_mm: float | Literal["file"] | None = None,
) -> Volume:
    """The scan at ``path`` on its own grid, with intensities in its own unit (HU for CT).

    Args:
        path: A file with a suffix of :data:`medseg.io.formats.SUFFIXES` (NIfTI, NRRD, MetaImage), a
            folder with a DICOM series, or any file of a series, whatever its suffix. Or a grey picture (PNG,
            JPEG, TIFF), which has one plane: see `medseg.io.picture.reader`.
        series: DICOM: the SeriesInstanceUID to read, an ending of it that is unique in the folder, or
            the number of the series in `list_series`.
        volume: Which of several volumes in one series or file (phases, echoes, time points, pages of a
            TIFF), counted from 1.
        trust: NIfTI: the form to use if ``sform`` and ``qform`` disagree, or ``pixdim`` to take
            voxel sizes along R, A and S if neither is set.
        nonfinite: The replacement for NaN and infinite voxels, which are otherwise refused.
        pixel_mm: Pictures: the size of a pixel in mm, or ``file`` for that in the resolution tags of a TIFF;
            by default 1, which stands for one pixel.

    Raises:
        InputRefused: the scan cannot be read, or only by guessing. The readers in
            `medseg.io.nifti`, `medseg.io.itk`, `medseg.io.dicom.series_reader` and
            `medseg.io.picture.reader` list their reasons; this function adds ``not-found``, ``empty`` and
            ``format``.

    Example:
        >>> scan = medseg.read("chest.nii.gz")
        >>> scan.grid
        Grid(98 x 76 x 67 voxels, 4 x 4 x 5 mm, LPS)
    """
    return _read(path, ReadOptions(series, volume, trust, nonfinite, pixel_mm))


def _read(path: str | Path, choices: ReadOptions) -> Volume:
    path = path_checks.existing(path)
    if path.is_dir():
        return _read_folder(path, choices)
    if signature.is_dicom(path):
        from medseg.io.dicom import series_reader

        return series_reader.read(path, choices)
    return _format(path).read(path, choices)


def _read_folder(path: Path, choices: ReadOptions) -> Volume:
    from medseg.io.dicom import series_reader

    try:
        return series_reader.read(path, choices)
    except InputRefused as error:
        if error.reason == "no-scan" and (formats.ending(path) or path.suffix.lower() == ".gz"):
            error.problem = f"a folder, although its name ends in {path.suffix}: {error.problem}"
        raise


def read_channels(
    paths: Sequence[str | Path], *, channels: int = 1, choices: ReadOptions = DEFAULT_OPTIONS
) -> tuple[Volume, ...]:
    """One volume per channel, all on the same grid.

    Args:
        paths: One path per channel; or a single 4D NIfTI file whose 4th dimension is
            ``channels`` (as in the Medical Segmentation Decathlon), or a picture in colour, whose channels
            are red, green and blue.
        channels: The number of channels the model needs.
        choices: The user's choices for ambiguous files: see :func:`read`.

    Raises:
        UsageError: the number of paths does not fit (``channel-count``).
        InputRefused: the channels lie on different grids (``grid-mismatch``), or as `read`.
    """
    if len(paths) == 1 and channels > 1:
        only = path_checks.existing(paths[0])
        if only.is_file() and not signature.is_dicom(only):
            if _format(only) is formats.NIFTI:
                return nifti.read_channels(only, choices, channels=channels)
            if formats.picture_ending(only):
                return picture_reader.read_channels(only, choices, channels=channels)
    if len(paths) != channels:
        raise UsageError(
            f"{channels} channel(s) are needed, but {len(paths)} path(s) were given",
            remedy="pass one path per channel, one 4D NIfTI file, or one picture in colour",
            reason="channel-count",
        )
    return on_first_grid([_read(path, choices) for path in paths])


def read_mask(
    path: str | Path,
    labels: Sequence[Label],
    grid: Grid | Volume | Mask | None = None,
    *,
    coding: MaskCoding = DEFAULT_CODING,
) -> Mask:
    """The mask at ``path``, in any image format, with labels for its values.

    Args:
        path: As for :func:`read`; floats are accepted if all are whole numbers, up to rounding by a scale
            factor in the header. Or a DICOM
            segmentation or structure set (SEG, RTSTRUCT) or a segmentation of 3D Slicer
            (.seg.nrrd), whose segments are matched by name, whatever their values.
        labels: The meaning of the values. Values without a label are kept.
        grid: The scan, or its grid, to put a SEG or RTSTRUCT on; other formats have their own
            grid. Prefer the scan: its slices may be unevenly rounded, and its frame of
            reference is compared. Without it a SEG has the smallest grid that holds its
            slices, and the series of an RTSTRUCT is searched for in its folder. A picture lies on the
            scan's grid if it has as many columns and rows.
        coding: Pictures: the colours of labels, and the value of unknown pixels.

    Raises:
        InputRefused: values with a fraction (``mask-dtype``) or outside 0..65535
            (``mask-range``), or as `read`, `medseg.io.dicom.seg.read`, `medseg.io.dicom.rtstruct.read` and
            `medseg.io.picture.masks.read_mask`.

    Example:
        >>> lung = medseg.Label(name="right_lung", values=(1, 3))
        >>> mask = medseg.read_mask("lungs.nii.gz", [lung])
        >>> round(mask.volumes_ml()["right_lung"])
        2181
    """
    path = path_checks.existing(path)
    kind = _derived(path)
    if kind:
        from medseg.io.dicom import rtstruct, seg

        if kind in sop_classes.RTSTRUCT:
            return rtstruct.read(path, labels, grid)
        return seg.read(path, labels, grid)
    if path.is_file() and formats.picture_ending(path) and not signature.is_dicom(path):
        own_grid = grid if grid is None or isinstance(grid, Grid) else grid.grid
        return picture_masks.read_mask(path, labels, own_grid, coding)
    if names_segments(path):
        return slicer_segments.read(path, labels)
    volume = read(path)
    rounding = nifti.label_rounding(path) if volume.source.format == "nifti" else 0.0
    array = whole_numbers(volume.array, path, rounding=rounding)
    try:
        return Mask(array, volume.grid, tuple(labels), volume.source)
    except InputRefused as error:
        error.where = str(path)
        raise


def is_dicom_mask(path: str | Path) -> bool:
    """Whether the file is a DICOM segmentation or structure set, which is read on its scan's grid."""
    return bool(_derived(Path(path)))


def list_segments(path: str | Path) -> tuple[Segment, ...]:
    """The segments of a SEG or .seg.nrrd, or the regions (ROIs) of an RTSTRUCT: number, name, value.

    Raises:
        InputRefused: another kind of file (``no-segments``), or damaged (``unreadable``).

    Example:
        >>> _ = medseg.segment_file("dicom_folder", "structures.dcm", model="threshold", format="rtstruct")
        >>> [segment.name for segment in medseg.list_segments("structures.dcm")]
        ['right_lung', 'left_lung']
    """
    path = path_checks.existing(path)
    if names_segments(path):
        return slicer_segments.list_segments(path)
    kind = _derived(path)
    if not kind:
        raise InputRefused(
            "not a DICOM segmentation, structure set or .seg.nrrd, so the file does not name its labels",
            where=path,
            remedy="name the labels with a recipe: --recipe NAME",
            reason="no-segments",
        )
    from medseg.io.dicom import rtstruct, seg

    if kind in sop_classes.RTSTRUCT:
        return rtstruct.list_segments(path)
    return seg.list_segments(path)


def names_segments(path: Path) -> bool:
    """Whether this is an NRRD file whose header names segments, as those of 3D Slicer."""
    known = formats.SUFFIXES.get(formats.ending(path) or "")
    is_nrrd = path.is_file() and known is not None and known.format is formats.NRRD
    return is_nrrd and bool(slicer_segments.stored_segments(path))


def _derived(path: Path) -> str:
    """SOPClassUID of a SEG or RTSTRUCT; empty for everything else."""
    if not path.is_file() or not signature.is_dicom(path):
        return ""
    from medseg.io.dicom import part10

    try:
        kind = str(part10.header(path, ["SOPClassUID"]).get("SOPClassUID") or "")
    except OSError:
        raise
    except Exception:  # the reader of scans will report what is wrong with it
        return ""
    return kind if kind in sop_classes.MASKS else ""


def write(image: Volume | Mask, path: str | Path, *, format: str | None = None, flush: bool = True) -> Path:
    """Writes a scan or a mask and returns its path; the suffix determines the format.

    The file has exactly the grid's shape and affine. It appears complete or not at all, and
    equal images give equal bytes.

    Args:
        image: For ``.dcm`` a mask of a DICOM scan, which the file will refer to.
        path: The file to write.
        format: For ``.dcm``: ``dicom-seg`` (the default) or ``rtstruct``.
        flush: Flush to disk; otherwise a power failure may leave an empty file.

    Raises:
        UsageError: unknown suffix or format (``format``), missing folder (``no-folder``), a mask
            whose scan is not DICOM (``no-dicom-source``).
        ResourceError: writing fails (``disk``), or highdicom is not installed (``missing-extra``).

    Example:
        >>> medseg.write(medseg.read("chest.nii.gz"), "copy.nrrd").name
        'copy.nrrd'
    """
    path = Path(path)
    name = check_writable(path, format)
    if name in DICOM_FORMATS and not isinstance(image, Mask):
        raise UsageError(
            "this is a scan, but only masks can be written to a single .dcm file",
            where=path,
            remedy="write .nii.gz, .nrrd or .mha, or a series with medseg.io.write_dicom_series",
            reason="format",
        )
    with atomic_write.replacing(path, flush=flush) as fresh:
        write_to(image, fresh, name)
    return path


def write_to(image: Volume | Mask, path: Path, name: str) -> None:
    """Writes directly to a path, for callers that move the file into place themselves.

    Args:
        image: What to write.
        path: The file, in a folder without other files: some formats write two.
        name: The name of the format, as given by :func:`check_writable`.
    """
    if isinstance(image, Mask) and name in DICOM_FORMATS:
        DICOM_FORMATS[name](image, path)
    else:
        _format(path).write(image, path)


def check_source(source: Source, path: str | Path) -> None:
    """Refuses a scan whose mask cannot be written to ``path``; call it before long work.

    Raises:
        UsageError: the path ends in .dcm, and the scan is not DICOM (``no-dicom-source``).
    """
    if formats.is_dicom_output(Path(path)):
        from medseg.io.dicom import source_series

        source_series.check_source(source)


def _format(path: Path) -> Format:
    ending = formats.ending(path) or ""
    if ending in FORMATS:
        return FORMATS[ending]
    known = formats.SUFFIXES.get(ending) or PICTURES.get(formats.picture_ending(path) or "")
    if known is not None:
        return known.format
    raise unsupported_formats.refusal(path, path_checks.head(path), ", ".join([*FORMATS, *PICTURES]))
