"""The grid of a NIfTI file, from sform, qform, or voxel sizes alone (nifti1.h)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from medseg.errors import InputRefused
from medseg.images.grid import Array, Grid
from medseg.images.volume import Source
from medseg.io.affine_checks import plausible, squared
from medseg.io.nifti.header import Header
from medseg.io.read_options import ReadOptions
from medseg.system.notices import notify

# Field xyzt_units: the lower three bits are the unit of length.
LENGTH_BITS = 0x07
_TO_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
# NIFTI_XFORM_TEMPLATE_OTHER, the last of nifti1.h (2021).
_LAST_CODE = 5
# A tenth of a millimetre is below any voxel we segment and above float32 rounding.
_FORM_TOLERANCE_MM = 0.1
# A quaternion is three float32: b2 + c2 + d2 may exceed 1 by their rounding.
_QUATERNION_TOLERANCE = 1e-5
# Two spacings that differ by 1 percent move the far corner of a scan by several voxels.
_SPACING_TOLERANCE = 0.01


def geometry(header: Header, path: Path, choices: ReadOptions) -> tuple[Grid, Source]:
    """The grid from sform or qform, whichever is set; if both are set, they must agree.

    Raises:
        InputRefused: see :func:`medseg.io.nifti.read`.
    """
    fields = header.fields
    units = int(fields["xyzt_units"])
    length = _TO_MM.get(units & LENGTH_BITS)
    if length is None:
        raise InputRefused(
            f"unknown unit of length {units & LENGTH_BITS}",
            reason="no-geometry",
            remedy="set xyzt_units to 2 (mm) if the sizes are in millimetres",
        )
    pixdim = fields["pixdim"].astype(float)[:4]
    if not np.isfinite(pixdim).all():
        raise _impossible(f"the voxel spacing is not finite: pixdim = {pixdim.tolist()}")
    codes = {"sform": int(fields["sform_code"]), "qform": int(fields["qform_code"])}
    unknown = {name: code for name, code in codes.items() if code > _LAST_CODE}
    if unknown:
        raise _impossible(f"unknown orientation code {unknown}")
    made = {"sform": _sform, "qform": _qform}
    used = [name for name in made if codes[name] > 0]
    if not used:
        grid = _unoriented(header, length, path, choices)
    else:
        if choices.trust in used:
            used = [str(choices.trust)]
        grids = {name: _grid(header.shape, made[name](fields), length, name) for name in used}
        if len(used) == 2:
            _check_agreement(grids, fields)
        grid = squared(plausible(grids[used[0]]), path)
        if used == ["sform"]:
            _compare_spacing(grid, pixdim[1:] * length, path)
    return grid, Source(path, "nifti", None, codes["sform"], codes["qform"], units)


def _grid(shape: tuple[int, int, int], affine: Array, length: float, name: str) -> Grid:
    if not np.isfinite(affine).all():
        raise _impossible(f"the affine of the {name} has values that are not finite")
    try:
        return Grid(shape, np.diag([length, length, length, 1.0]) @ affine)
    except InputRefused as error:
        error.problem = f"{name}: {error.problem}"
        raise


def _sform(fields: Any) -> Array:
    """Method 3 of nifti1.h: the affine itself."""
    rows = [fields[f"srow_{axis}"].astype(float) for axis in "xyz"]
    return np.vstack([*rows, [0.0, 0.0, 0.0, 1.0]])


def _qform(fields: Any) -> Array:
    """Method 2 of nifti1.h: a rotation as a quaternion, voxel sizes, and a shift."""
    b, c, d = (float(fields[f"quatern_{name}"]) for name in "bcd")
    handed, *sizes = (float(n) for n in fields["pixdim"][:4])
    squares = b * b + c * c + d * d
    if not squares <= 1 + _QUATERNION_TOLERANCE:  # also when NaN
        raise _impossible(f"the quaternion of the qform is not a rotation: b2 + c2 + d2 = {squares:.6g} > 1")
    if min(sizes) <= 0 or handed not in (-1.0, 0.0, 1.0):
        raise _impossible(
            f"the qform needs positive voxel sizes and qfac 1 or -1: pixdim = {[handed, *sizes]}"
        )
    if squares > 1:
        b, c, d = (n / math.sqrt(squares) for n in (b, c, d))
    a = math.sqrt(max(0.0, 1 - b * b - c * c - d * d))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    affine: Array = np.eye(4)
    # Older files have a qfac of 0, which means 1 (nifti1.h).
    affine[:3, :3] = rotation * [sizes[0], sizes[1], sizes[2] * (handed or 1.0)]
    affine[:3, 3] = [float(fields[f"qoffset_{axis}"]) for axis in "xyz"]
    return affine


def _check_agreement(grids: dict[str, Grid], fields: Any) -> None:
    """Refuses forms that place voxels differently, beyond the precision of a float32 quaternion.

    Its fourth component is the root of 1 - b2 - c2 - d2. Near half a turn, as in most scans
    stored from left to right and back to front, this is the root of a rounding error: with 2
    float32 ulp of 1 (2.4e-7) in the sum, the component is wrong by up to 4.9e-4 and the angle
    by twice that.
    """
    sform, qform = grids["sform"], grids["qform"]
    apart = sform.distance_mm(qform)
    lost = 2 * float(np.finfo(np.float32).eps)
    a_squared = max(0.0, 1 - sum(float(fields[f"quatern_{name}"]) ** 2 for name in "bcd"))
    most, least = math.sqrt(a_squared + lost), math.sqrt(max(0.0, a_squared - lost))
    angle = 2 * max(most - math.sqrt(a_squared), math.sqrt(a_squared) - least)
    corners = sform.corners_mm
    diagonal = float(np.linalg.norm(corners[-1] - corners[0]))
    if apart > _FORM_TOLERANCE_MM + angle * diagonal:
        placements = " and ".join(
            f"{name} {form} from {np.round(form.affine[:3, 3], 2).tolist()}" for name, form in grids.items()
        )
        raise InputRefused(
            f"{placements} place voxels {apart:.4g} mm apart",
            reason="form-conflict",
            remedy="choose the right one with --trust sform or --trust qform",
        )


def _compare_spacing(grid: Grid, sizes_mm: Array, path: Path) -> None:
    """Sends a notice if the voxel sizes in pixdim disagree with the sform, which takes precedence."""
    if not np.allclose(grid.spacing_mm, np.abs(sizes_mm), rtol=_SPACING_TOLERANCE):
        notify(
            "spacing-conflict",
            f"voxels of {' x '.join(f'{s:.4g}' for s in sizes_mm)} mm by pixdim, but"
            f" {' x '.join(f'{s:.4g}' for s in grid.spacing_mm)} mm by the sform; the sform counts",
            path=path,
        )


def _unoriented(header: Header, length: float, path: Path, choices: ReadOptions) -> Grid:
    """Method 1 of nifti1.h: voxel sizes alone, used only at the user's request."""
    sizes = header.fields["pixdim"][1:4].astype(float) * length
    if choices.trust != "pixdim":
        raise InputRefused(
            "neither sform nor qform is set, so the orientation is unknown: where left and right are",
            reason="no-geometry",
            remedy="set it with the tool that made the file, or assume axes R, A, S with --trust pixdim",
        )
    if sizes.min() <= 0:
        raise _impossible(f"the voxel spacing is not positive: pixdim = {sizes.tolist()} mm")
    notify("no-orientation", "no orientation in the file; axes are assumed to be R, A and S", path=path)
    return plausible(Grid.from_spacing(header.shape, sizes.tolist()))


def _impossible(problem: str) -> InputRefused:
    return InputRefused(
        problem,
        reason="geometry",
        remedy="correct the header; if the other form is right, choose it with --trust sform or qform",
    )
