"""The two kinds of image: `Volume` (a scan) and `Mask` (a label map), each on a `Grid`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from medseg.errors import InputRefused, UsageError
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.label_selection import select_labels, unknown_label
from medseg.images.value_counts import value_counts
from medseg.system.notices import notify

if TYPE_CHECKING:
    from medseg.visualization.overlays import Picture

Voxels: TypeAlias = npt.NDArray[Any]
PICTURE = "picture"
"""Format and modality of the source of a picture (PNG, JPEG, TIFF)."""
# Labels that were scaled to 16 bits and back are up to 0.0009 off for TotalSegmentator's 117 classes.
_ROUNDING = 1e-3


@dataclass(frozen=True)
class Source:
    """Where a volume came from, and header fields that are kept when it is written again.

    Attributes:
        path: The file or folder that was read; None for data made in memory.
        files: DICOM: the files of the slices in the order of the third array axis, or the
            one multi-frame file. Empty for other formats.
        format: ``nifti``, ``dicom``, ``nrrd``, ``mha``, ``picture`` or ``memory``.
        modality: DICOM modality such as ``CT`` or ``MR``, or ``picture``; None for other formats.
        sform_code: NIfTI sform code of the source; None for other formats.
        qform_code: NIfTI qform code of the source; None for other formats.
        xyzt_units: NIfTI units byte of the source; None for other formats.

    Example:
        >>> medseg.read("dicom_folder").source.modality
        'CT'
    """

    path: Path | None = None
    format: str = "memory"
    modality: str | None = None
    sform_code: int | None = None
    qform_code: int | None = None
    xyzt_units: int | None = None
    files: tuple[Path, ...] = ()


@dataclass(frozen=True, eq=False)
class Volume:
    """A single-channel scan: read-only array (X, Y, Z) and its grid.

    The array keeps the source's dtype if that is lossless (int16 for CT); intensities are in
    the source's unit, which is HU for CT. A scan of several channels is several volumes.

    Raises:
        InputRefused: the array is not 3D or does not have the grid's shape (``shape``), or has NaN or
            infinite voxels (``not-finite``), which would spread through every computation.

    Example:
        >>> grid = medseg.Grid((4, 4, 2), np.diag([2.0, 2.0, 5.0, 1.0]))
        >>> medseg.Volume(np.zeros((4, 4, 2), np.int16), grid).save("air.nii.gz").name
        'air.nii.gz'
    """

    array: Voxels
    grid: Grid
    source: Source = field(default_factory=Source)

    def __post_init__(self) -> None:
        _check_finite(np.asarray(self.array))
        object.__setattr__(self, "array", _read_only(self.array, self.grid))

    @property
    def affine(self) -> npt.NDArray[np.float64]:
        """4x4 voxel-to-world affine, RAS+ mm."""
        return self.grid.affine

    def oriented(self, axcodes: str) -> Volume:
        """The same scan with its array axes permuted and flipped to ``axcodes`` (a view)."""
        return Volume(_moved(self.array, self.grid, axcodes), self.grid.oriented(axcodes), self.source)

    def save(self, path: str | Path) -> Path:
        """Writes the scan; the suffix chooses the format. See :func:`medseg.io.write`."""
        import medseg

        return medseg.write(self, path)

    def __repr__(self) -> str:
        return f"Volume({np.asarray(self.array).dtype}, {self.grid})"

    def _repr_html_(self) -> str:
        import medseg

        return medseg.html_card(self)


@dataclass(frozen=True, eq=False)
class Mask:
    """Labels on a grid: read-only integer array (X, Y, Z), 0 for background.

    The array is stored in the smallest unsigned dtype that holds the labels' values.

    Raises:
        InputRefused: the array is not 3D, not of an integer type, or does not have the grid's shape.
        UsageError: two labels share a name or a written value.

    Example:
        >>> grid = medseg.Grid((4, 4, 2), np.diag([10.0, 10.0, 10.0, 1.0]))
        >>> array = np.zeros((4, 4, 2), np.uint8)
        >>> array[:2] = 1
        >>> mask = medseg.Mask(array, grid, (medseg.Label(name="liver", values=(1,)),))
        >>> mask.volumes_ml()
        {'liver': 16.0...}
    """

    array: Voxels
    grid: Grid
    labels: tuple[Label, ...]
    source: Source = field(default_factory=Source)

    def __post_init__(self) -> None:
        check_labels(self.labels)
        array = np.asarray(self.array)
        if array.dtype.kind not in "bui":
            raise InputRefused(
                f"a mask must hold integers, got {array.dtype}",
                reason="mask-dtype",
                remedy="round the labels, or pass the scan as a Volume",
            )
        top = max([int(array.max(initial=0)), *(v for label in self.labels for v in label.values)])
        low = int(array.min(initial=0))
        if low < 0 or top > 65535:
            signed = ", as those of a scan do" if low < 0 else ""
            mask = "give the mask instead of the scan (`medseg segment` makes one), or " if low < 0 else ""
            raise InputRefused(
                f"the values of a mask must lie in 0..65535, but these lie in {low}..{top}{signed}",
                reason="mask-range",
                remedy=f"{mask}renumber the labels",
            )
        array = array.astype(np.uint8 if top < 256 else np.uint16, copy=False)
        object.__setattr__(self, "array", _read_only(array, self.grid))
        object.__setattr__(self, "labels", tuple(self.labels))

    def __repr__(self) -> str:
        labels = ", ".join(f"{label.name}={'/'.join(map(str, label.values))}" for label in self.labels)
        return f"Mask({labels or 'no labels'}, {self.grid})"

    @property
    def affine(self) -> npt.NDArray[np.float64]:
        """4x4 voxel-to-world affine, RAS+ mm."""
        return self.grid.affine

    def of(self, name: str) -> npt.NDArray[np.bool_]:
        """The voxels of the label ``name``, bool (X, Y, Z); all its values count.

        Raises:
            UsageError: no label has that name.
        """
        for label in self.labels:
            if label.name == name:
                return members(self.array, label)
        raise unknown_label([name], [label.name for label in self.labels])

    def only(self, *names: str) -> Mask:
        """The mask with these labels only; each keeps its voxels and its value.

        Raises:
            UsageError: no label has one of the names (``no-such-label``).

        Example:
            >>> medseg.segment("chest.nii.gz", model="threshold").only("left_lung").labels
            (Label(name='left_lung', values=(2,), side='left'),)
        """
        selection = select_labels(self.labels, names)
        painted = selection.painted.astype(self.array.dtype)  # half of the memory of 16 bits
        return Mask(painted[self.array], self.grid, selection.labels, self.source)

    def volumes_ml(self) -> dict[str, float]:
        """Volume of every label in millilitres (voxel count times voxel volume); 0.0 for an empty label."""
        counts = value_counts(self.array)  # one pass, whatever the number of labels
        return {
            label.name: float(counts[sorted(set(label.values))].sum()) * self.grid.voxel_ml
            for label in self.labels
        }

    def pixels(self) -> dict[str, int]:
        """Number of voxels of every label, which are the pixels of a picture; 0 for an empty label."""
        counts = value_counts(self.array)
        return {label.name: int(counts[sorted(set(label.values))].sum()) for label in self.labels}

    def oriented(self, axcodes: str) -> Mask:
        """The same mask with its array axes permuted and flipped to ``axcodes`` (a view)."""
        array = _moved(self.array, self.grid, axcodes)
        return Mask(array, self.grid.oriented(axcodes), self.labels, self.source)

    def save(self, path: str | Path, *, format: str | None = None) -> Path:
        """Writes the mask; the suffix chooses the format. See :func:`medseg.io.write`."""
        import medseg

        return medseg.write(self, path, format=format)

    def preview(self, scan: Volume | None = None) -> Picture:
        """The mask over its scan: three planes and a row of slices, a PNG that shows itself in a notebook.

        Args:
            scan: A scan on the same grid; by default it is read again from the path in the mask's source.

        Raises:
            UsageError: the mask does not know its scan (``no-source``), or is not on the scan's grid.
            InputRefused: the scan can no longer be read, or its folder now holds several.
        """
        import medseg

        if scan is None:
            if self.source.path is None:
                raise UsageError(
                    "the mask was made in memory and does not know its scan",
                    remedy="pass the scan: mask.preview(scan)",
                    reason="no-source",
                )
            scan = medseg.read(self.source.path)
        return medseg.preview(scan, self)

    def _repr_html_(self) -> str:
        import medseg

        return medseg.html_card(self)


def members(array: Voxels, label: Label) -> npt.NDArray[np.bool_]:
    """The voxels of a label map that belong to ``label``, as a boolean array."""
    found: npt.NDArray[np.bool_] = array == label.values[0]
    for value in label.values[1:]:
        found |= array == value
    return found


def whole_numbers(array: Voxels, where: str | Path, *, rounding: float = 0.0) -> Voxels:
    """A label map in an integer dtype; an array of integers is returned as it is.

    Values within 0.001 of a whole number are rounded, with a notice: programs that read scaled labels and
    write floats leave 0.99999 behind, while interpolated labels and probabilities have values in between.

    Args:
        array: Real numbers of any shape. Values far outside the range of labels become -1 or 2^20, which
            :class:`Mask` refuses.
        where: The file or argument that errors name.
        rounding: How far the file's own precision may have moved a value, such as half of its scale factor.

    Raises:
        InputRefused: a value has a fraction or is NaN (``mask-dtype``).
    """
    if array.dtype.kind != "f":
        return array
    whole = np.rint(array)
    with np.errstate(invalid="ignore"):  # infinity has no fraction, and NaN is counted as odd
        gaps = np.where(whole == array, 0, np.abs(array - whole))
    # Scaled numbers were rounded twice to the precision of float32.
    precision = 2 * float(np.finfo(np.float32).eps) * min(65535.0, float(np.abs(whole).max(initial=0.0)))
    odd = int(np.count_nonzero(~(gaps <= max(rounding, _ROUNDING) + precision)))
    if odd:
        raise InputRefused(
            f"{odd} of {array.size} voxels are not whole numbers: this is not a label map",
            where=where,
            remedy="pass the mask itself, not the scan or probabilities; resample with nearest neighbour",
            reason="mask-dtype",
        )
    if gaps.max(initial=0.0) > precision:
        notify(
            "labels-rounded",
            f"labels up to {float(gaps.max()):.2g} off whole numbers were rounded to them",
            path=where,
        )
    return np.clip(whole, -1, 1 << 20).astype(np.int32)


def check_labels(labels: Sequence[Label]) -> None:
    """Raises UsageError if two labels share a name or a written value."""
    for what, seen in (
        ("name", [x.name for x in labels]),
        ("written value", [str(x.value) for x in labels]),
    ):
        twice = sorted({s for s in seen if seen.count(s) > 1})
        if twice:
            raise UsageError(
                f"labels share the same {what}: {', '.join(twice)}",
                where="labels",
                remedy=f"give each label its own {what}",
                reason="labels",
            )


def _read_only(array: Voxels, grid: Grid) -> Voxels:
    view = np.asarray(array).view()
    if view.shape != grid.shape:
        raise InputRefused(
            f"array of shape {view.shape} does not fit a grid of shape {grid.shape}",
            reason="shape",
            remedy="pass one (X, Y, Z) array for each channel",
        )
    view.setflags(write=False)
    return view


def _check_finite(array: Voxels) -> None:
    """Refuses NaN and infinite voxels."""
    if array.dtype.kind != "f":
        return
    # Cheap for scans: a sum is finite only if all of its numbers are, unless it overflows.
    with np.errstate(over="ignore", invalid="ignore"):
        total = array.sum(dtype=np.float64)
    if np.isfinite(total):
        return
    holes = sum(int(np.count_nonzero(~np.isfinite(part))) for part in array)
    if holes:
        raise InputRefused(
            f"{holes} of {array.size} voxels are NaN or infinite (not finite)",
            reason="not-finite",
            remedy="replace them: medseg.as_volume((array, affine), ReadOptions(nonfinite=-1024))",
        )


def _moved(array: Voxels, grid: Grid, axcodes: str) -> Voxels:
    order, flips = grid.moves_to(axcodes)
    moved = np.transpose(array, order)
    axes = tuple(axis for axis, flipped in enumerate(flips) if flipped)
    return np.flip(moved, axes) if axes else moved
