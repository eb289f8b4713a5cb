"""Spatial augmentation: flips, and affine maps with deformations in a single resampling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import torch

from medseg.preprocessing.augmentation.interpolation import Matrix, read_at, spline_places
from medseg.preprocessing.augmentation.transform import Augmentation, Patch, RandomTransform
from medseg.recipe import Augment, NnunetAugment, Recipe
from medseg.recipe.augmentation import mirrored


class Flip(RandomTransform):
    """Flips along given axes, each with probability one half.

    Args:
        axes: Axes of the patch.
        mirrored: For each label, the index of its mirror image. After a flip of axis 0 (R-L) the right
            lung is the left one; this includes unknown voxels.
    """

    def __init__(self, axes: Sequence[int], mirrored: Sequence[int]) -> None:
        super().__init__(0.5)
        self.axes = tuple(dict.fromkeys(axes))
        self.mirrored = list(mirrored)
        self.flipped: list[int] = []

    def randomize(self, data: Mapping[str, torch.Tensor]) -> None:
        """Draws the axes to flip."""
        self.flipped = [axis for axis in self.axes if self.happens()]

    def __call__(self, data: Mapping[str, torch.Tensor]) -> Patch:
        """The patch, flipped along the axes drawn."""
        self.randomize(data)
        if not self.flipped:
            return dict(data)
        image, label = (data[key].flip([axis + 1 for axis in self.flipped]) for key in ("image", "label"))
        flipped = dict(data) | {"image": image, "label": label}
        if 0 in self.flipped and self.mirrored != sorted(self.mirrored):
            if "table" in data:
                flipped["table"] = data["table"][:, self.mirrored]
            else:
                flipped["label"] = label[self.mirrored]
        return flipped


class Deform(RandomTransform):
    """Rotation, scaling, shear, shift and elastic deformation about the centre of the patch.

    The affine and the elastic part are each applied with ``probability``. The control points of one cubic
    B-spline hold both (Rueckert et al. 1999, doi:10.1109/42.796284), so that image (linear) and label
    (nearest neighbour) are resampled only once. Beyond the patch its outermost voxels are repeated.

    Attributes:
        control: Positions of the control points in voxels of the patch; None if nothing moves.
        distances: Distance between control points along each axis, in voxels.
        reach: float64 (2, axes), the lowest and highest position, in voxels of the patch, that is read.

    Args:
        rules: Largest amounts. With sided labels the recipe allows rotations up to 90 degrees only.
        spacing_mm: Voxel size along each axis of the patch; angles and lengths are those of the patient.
    """

    def __init__(self, rules: Augment, spacing_mm: Sequence[float]) -> None:
        super().__init__(rules.probability)
        self.rules = rules
        self.spacing_mm = np.array(spacing_mm)
        self.control: Matrix | None = None
        self.distances: list[float] = []
        self.reach = np.zeros((2, len(self.spacing_mm)))

    def randomize(self, data: Mapping[str, torch.Tensor]) -> None:
        """Draws the control points; None if nothing moves."""
        self.place(data["image"].shape[1:])

    def place(self, shape: Sequence[int]) -> None:
        """Draws the control points for a patch of this shape, and the box that they make it read."""
        rules, axes = self.rules, len(self.spacing_mm)
        matrix, shift_mm = np.eye(axes), np.zeros(axes)
        affine = (
            max(rules.rotate_degrees, rules.scale, rules.shear, rules.translate_mm) > 0 and self.happens()
        )
        elastic = rules.elastic_mm > 0 and self.happens()
        if affine:
            turns = [self.within(rules.rotate_degrees) for _ in range(3 if axes == 3 else 1)]
            sizes = [1 + self.within(rules.scale) for _ in range(axes)]
            leans = [self.within(rules.shear) for _ in range(axes * (axes - 1) // 2)]
            matrix = placement(turns, sizes, leans)
            shift_mm = np.array([self.within(rules.translate_mm) for _ in range(axes)])
        self.distances = [
            rules.elastic_grid_mm / mm if elastic else float(n)
            for n, mm in zip(shape, self.spacing_mm, strict=True)
        ]
        control = positions(shape, self.distances, matrix, shift_mm, self.spacing_mm)
        margin = rules.elastic_mm / self.spacing_mm if elastic else np.zeros(axes)
        self.reach = reach(shape, matrix, shift_mm, self.spacing_mm) + np.stack([-margin, margin])
        if elastic:
            moves_mm = self.R.uniform(-rules.elastic_mm, rules.elastic_mm, size=control.shape)
            control += moves_mm / self.spacing_mm.reshape(-1, *[1] * axes)
        self.control = control if affine or elastic else None

    def __call__(self, data: Mapping[str, torch.Tensor]) -> Patch:
        """The patch, moved as drawn."""
        self.randomize(data)
        if self.control is None:
            return dict(data)
        image, label = read_at(data["image"], data["label"], self.control, self.distances)
        return dict(data) | {"image": image, "label": label}


class NnunetDeform(Deform):
    """nnU-Net's rotation and scaling, each with a probability of 0.2, about the centre of the patch.

    Angles are those of the voxel grid, and all axes are scaled alike. Unlike in nnU-Net the label is that of
    the nearest voxel.

    Args:
        rules: Largest rotation, and the axis that is left alone.
        axes: Number of axes of the patch.
    """

    def __init__(self, rules: NnunetAugment, axes: int) -> None:
        super().__init__(Augment(probability=0.2), [1.0] * axes)
        self.nnunet = rules

    def place(self, shape: Sequence[int]) -> None:
        """Draws the control points for a patch of this shape."""
        axes = len(shape)
        turned, scaled = self.happens(), self.happens()
        self.control = None
        if not turned and not scaled:
            return
        turns = [self.within(self.nnunet.rotate_degrees) if turned else 0.0 for _ in range(2 * axes - 3)]
        # The content becomes as many times smaller.
        smaller = float(self.R.uniform(0.7, 1.4)) if scaled else 1.0
        sizes = [1 / smaller] * axes
        if (flat := self.nnunet.flat_axis) is not None:
            turns = [angle if axis == flat else 0.0 for axis, angle in enumerate(turns)]
            sizes[flat] = 1.0
        matrix = placement([-angle for angle in turns], sizes, [0.0] * (axes * (axes - 1) // 2))
        self.distances = [float(n) for n in shape]
        self.control = positions(shape, self.distances, matrix, np.zeros(axes), self.spacing_mm)
        self.reach = reach(shape, matrix, np.zeros(axes), self.spacing_mm)


def placement(turns_degrees: Sequence[float], sizes: Sequence[float], leans: Sequence[float]) -> Matrix:
    """The affine matrix, in mm about the centre, that moves the content of a patch.

    It scales first, then shears, then rotates. A rotation about an axis turns the next axis towards the one
    after it (0 to 1 about axis 2, as ``numpy.rot90``); in 3D the rotation about axis 2 comes first. The
    first entry of the matrix is at least the product of the cosines about axes 1 and 2, so that up to 90
    degrees the patient's right never becomes left.

    Args:
        turns_degrees: Rotations about axes 0, 1 and 2; in 2D the one in the plane.
        sizes: Scaling factor along each axis.
        leans: Tangents of the shear of axis 0 towards 1 (in 3D also 0 towards 2, and 1 towards 2).
    """
    axes = len(sizes)
    turn = np.eye(axes)
    for axis, degrees in enumerate(turns_degrees):
        start, end = ((axis + 1) % 3, (axis + 2) % 3) if axes == 3 else (0, 1)
        one = np.eye(axes)
        cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        one[[start, start, end, end], [start, end, start, end]] = cosine, -sine, sine, cosine
        turn = turn @ one
    shear = np.eye(axes)
    shear[np.triu_indices(axes, 1)] = leans
    matrix: Matrix = turn @ shear @ np.diag(sizes)
    return matrix


def positions(
    shape: Sequence[int], distances: Sequence[float], matrix: Matrix, shift_mm: Matrix, spacing_mm: Matrix
) -> Matrix:
    """Positions, in voxels, that the result's control points sample: float64 (axes, *control points).

    Args:
        shape: Shape of the patch.
        distances: Distance between control points along each axis, in voxels.
        matrix: Affine matrix from :func:`placement`.
        shift_mm: Shift of the content along each axis.
        spacing_mm: Voxel size along each axis.
    """
    places = [spline_places(n, d) * mm for n, d, mm in zip(shape, distances, spacing_mm, strict=True)]
    wanted = np.stack(np.meshgrid(*places, indexing="ij")) - shift_mm.reshape(-1, *[1] * len(shape))
    moved = np.tensordot(np.linalg.inv(matrix), wanted, axes=1)
    scale, centre = (np.reshape(v, (-1, *[1] * len(shape))) for v in (spacing_mm, (np.array(shape) - 1) / 2))
    read: Matrix = moved / scale + centre
    return read


def reach(shape: Sequence[int], matrix: Matrix, shift_mm: Matrix, spacing_mm: Matrix) -> Matrix:
    """The lowest and highest position, in voxels, that the voxels of an affine map sample: (2, axes)."""
    half = (np.array(shape) - 1) / 2
    corners = np.array(list(product(*([-n, n] for n in half)))) * spacing_mm - shift_mm
    read = np.linalg.solve(matrix, corners.T).T / spacing_mm + half
    return np.stack([read.min(0), read.max(0)])


def flip(recipe: Recipe) -> RandomTransform:
    """The flips of a recipe."""
    # None for a label without a mirror image; such a recipe has no flip of axis 0.
    places = [at if at is not None else n for n, at in enumerate(mirrored(recipe.labels))]
    return Flip(recipe.augment.flip_axes, places)


def _deform(recipe: Recipe) -> Deform:
    assert isinstance(recipe.augment, Augment)
    return Deform(recipe.augment, recipe.prepare.spacing_mm[: recipe.spatial_dims])


def movement(recipe: Recipe) -> Deform | None:
    """What moves the patches of a recipe while they are cut; None if they are moved afterwards, or never.

    See ``larger_cut`` in :class:`medseg.recipe.Augment`.
    """
    rules = recipe.augment
    if isinstance(rules, NnunetAugment):
        return NnunetDeform(rules, recipe.spatial_dims)
    moves = rules.larger_cut and any(getattr(rules, field) for field in ROWS["deform"].fields)
    return _deform(recipe) if moves else None


ROWS = {
    "flip": Augmentation(("flip_axes",), flip),
    "deform": Augmentation(("rotate_degrees", "scale", "shear", "translate_mm", "elastic_mm"), _deform),
}
"""Rows of the table, in the order of application."""
