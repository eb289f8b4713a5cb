"""Conversion between file formats; voxels and grid stay the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from medseg.errors import InputRefused, UsageError
from medseg.images.label import Label
from medseg.images.mask_placement import placed_on, resampled_on
from medseg.images.volume import Mask, Volume
from medseg.io import check_source, check_writable, read_mask, write_to
from medseg.io.foreign_images import ScanLike, as_volume
from medseg.io.formats import is_dicom_output
from medseg.io.mask_files import is_own_mask, write_mask
from medseg.io.overwrite_guard import OverwriteGuard, replacing_equal
from medseg.io.read_options import DEFAULT_OPTIONS, ReadOptions
from medseg.io.sidecar import is_own_sidecar, meaning_of, sidecar_path
from medseg.system.progress import Advance, Shown, progress_bar, steps_shown


def convert(
    scan: ScanLike,
    output: str | Path,
    *,
    options: ReadOptions = DEFAULT_OPTIONS,
    progress: Shown = None,
) -> Volume:
    """Writes a scan in another format and returns it; the suffix of ``output`` determines the format.

    Args:
        scan: A path, as :func:`medseg.read` takes it, or an image, as :func:`medseg.as_volume` takes it.
        output: NIfTI, NRRD or MetaImage.
        options: The user's choices for ambiguous scans.
        progress: Whether to show a progress bar; None for only on a terminal or in a notebook.

    Raises:
        UsageError: the output is the scan itself (``overwrites-input``) or a file with other content
            (``foreign-file``), has an unknown suffix (``format``), or its folder is missing (``no-folder``).
        InputRefused: the scan cannot be read or trusted, as for :func:`medseg.read`.

    Example:
        >>> medseg.convert("dicom_folder", "scan.nii.gz").grid
        Grid(98 x 76 x 67 voxels, 4 x 4 x 5 mm, LPS)
    """
    output = Path(output)
    check_scan_output(output, [scan] if isinstance(scan, str | Path) else [])
    with progress_bar("converting", progress) as advance:
        with _reading(advance):
            volume = as_volume(scan, options)
        with replacing_equal(output) as fresh:
            write_to(volume, fresh, check_writable(output))
    return volume


def convert_mask(
    mask: str | Path | Mask,
    output: str | Path,
    *,
    scan: str | Path | Volume | None = None,
    labels: Sequence[Label] = (),
    format: str | None = None,
    options: ReadOptions = DEFAULT_OPTIONS,
    resample: bool = False,
    progress: Shown = None,
) -> Mask:
    """Writes a mask in another format, with its labels in a ``.json`` beside it, and returns it.

    Args:
        mask: A label map in any format, a DICOM segmentation or a structure set.
        output: NIfTI, NRRD, MetaImage, or ``.dcm``.
        scan: The mask's scan: the output has its grid, and a ``.dcm`` output refers to it. A mask that was
            cropped from the scan is padded.
        labels: The meaning of the values; by default the names of the segments, if the file has them.
        format: For ``.dcm`` outputs: ``dicom-seg`` (the default) or ``rtstruct``.
        options: The user's choices for ambiguous scans.
        resample: Whether a mask on another grid than the scan's is resampled to it by nearest neighbour, with
            a notice; otherwise it is refused.
        progress: Whether to show a progress bar; None for only on a terminal or in a notebook.

    Raises:
        UsageError: as for :func:`convert`, except that masks of medseg are replaced unless they were changed
            since; a ``.dcm`` output without a scan (``usage``) or for a scan that is not DICOM
            (``no-dicom-source``).
        InputRefused: the mask's voxels are not the scan's (``grid-mismatch``), or as for
            :func:`medseg.read_mask`.

    Example:
        >>> medseg.convert_mask("lungs.nii.gz", "lungs_again.nrrd").grid.axcodes
        'LPS'
    """
    output = Path(output)
    check_mask_output(output, [path for path in (mask, scan) if isinstance(path, str | Path)], format)
    with progress_bar("converting", progress) as advance:
        with _reading(advance):
            volume = None if scan is None else as_volume(scan, options)
            if volume is not None:
                check_source(volume.source, output)
            elif is_dicom_output(output) and not isinstance(mask, Mask):
                raise UsageError(
                    "a .dcm mask must refer to a DICOM scan",
                    remedy="name the scan with --reference SCAN",
                    reason="usage",
                )
            made = _on_scan(mask, labels, volume, resample)
        write_mask(made, output, meaning_of(made), format=format)
    return made


@contextmanager
def _reading(advance: Advance) -> Iterator[None]:
    """Shows the slices that the block reads, and writing as the step after them."""
    slices = 1

    def read(done: int, total: int, facts: str = "", /) -> None:
        nonlocal slices
        slices = total
        advance(done, total + 1, facts)

    read(0, 1, "reading")
    with steps_shown(read):
        yield
    advance(slices, slices + 1, "writing")


def _on_scan(mask: str | Path | Mask, labels: Sequence[Label], scan: Volume | None, resample: bool) -> Mask:
    """The mask, on the grid of its scan if there is one."""
    if scan is None:
        return mask if isinstance(mask, Mask) else read_mask(mask, labels)
    try:
        made = mask if isinstance(mask, Mask) else read_mask(mask, labels, scan)
        made = placed_on(made, scan.grid, crop=True)
    except InputRefused as error:
        if not resample or error.reason != "grid-mismatch":
            if error.reason == "grid-mismatch":
                error.remedy = (
                    "pass the scan that was segmented, or --resample to use the nearest voxels of the mask"
                )
            raise
        # A DICOM SEG is refused on a scan's grid that is not its own; without a scan it brings its own.
        made = resampled_on(mask if isinstance(mask, Mask) else read_mask(mask, labels), scan.grid)
    return Mask(made.array, made.grid, made.labels, scan.source)


def check_scan_output(output: Path, inputs: Sequence[str | Path]) -> None:
    """Refuses, before any work, an output for a scan that cannot be written or would replace an input.

    Raises:
        UsageError: as for :func:`medseg.io.check_writable`, or the output is an input
            (``overwrites-input``).
    """
    check_writable(output)
    OverwriteGuard(inputs).check(output)


def check_mask_output(output: Path, inputs: Sequence[str | Path], format: str | None = None) -> None:
    """Refuses, before long work, an output for a mask that cannot be written or would replace another file.

    Raises:
        UsageError: as for :func:`medseg.io.check_writable`; the output or its sidecar is an input
            (``overwrites-input``), or was not written by medseg (``foreign-file``).
        ResourceError: highdicom is not installed (``missing-extra``).
    """
    check_writable(output, format)
    guard = OverwriteGuard(inputs)
    guard.check(output, is_own=is_own_mask)
    guard.check(sidecar_path(output), is_own=is_own_sidecar)
