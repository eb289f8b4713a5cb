from __future__ import annotations

import math
from itertools import permutations, product

import numpy as np
import pytest
from skimage.measure import marching_cubes, mesh_surface_area

from medseg.images.marching_surface import _areas, surface_and_volume


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.4, 0.4, 10.0), (1.0, 2.0, 3.0)])
def test_areas_of_simple_cells_by_hand(spacing):
    x, y, z = spacing
    areas = _areas(spacing)
    assert areas.shape == (256,)
    assert areas[0] == areas[255] == 0
    # One corner: a triangle between the middles of three edges, half of |(x/2, y/2, 0) x (x/2, 0, z/2)|.
    corner = math.hypot(y * z, x * z, x * y) / 8
    assert areas[0b1] == pytest.approx(corner)
    assert areas[0b10000001] == pytest.approx(2 * corner)  # opposite corners: two triangles
    # Corners 0 to 3 have x = 0: a face across x. Corners 0 and 1: a rectangle, z long, across x and y.
    assert areas[0b1111] == pytest.approx(y * z)
    assert areas[0b11] == pytest.approx(z * math.hypot(x, y) / 2)


def test_areas_are_those_of_the_complement_and_of_every_mirror_image():
    areas = _areas((1.0, 1.0, 1.0))
    for code in range(256):
        cube = np.array([code >> bit & 1 for bit in range(8)]).reshape(2, 2, 2)
        images = {
            int(sum(value << bit for bit, value in enumerate(image.ravel().tolist())))
            for axes in permutations(range(3))
            for flips in product((1, -1), repeat=3)
            for image in [cube.transpose(axes)[tuple(slice(None, None, step) for step in flips)]]
        }
        assert areas[sorted(images)] == pytest.approx(areas[code])
        if cube.sum() != 4:
            assert areas[255 - code] == pytest.approx(areas[code])


def test_one_voxel_is_an_octahedron():
    # Its corners lie at half a voxel along each axis: volume 4/3 of the product of the half axes.
    one = np.ones((1, 1, 1), bool)
    area, volume = surface_and_volume(one, (1.0, 2.0, 3.0))
    # Eight triangles, each half of |(-a, b, 0) x (-a, 0, c)| with half axes a, b, c.
    triangle = math.hypot(1.0 * 1.5, 0.5 * 1.5, 0.5 * 1.0) / 2
    assert area == pytest.approx(8 * triangle)
    assert volume == pytest.approx(4 / 3 * 0.5 * 1.0 * 1.5)


def test_a_box_lacks_its_edges_and_corners():
    # Without the chamfer a box of a x b x c voxels holds a b c. Each of 4 edges of (a - 1) lacks a prism of
    # 1/8 per voxel, and each corner voxel's octant keeps 1/48 x 8 = 1/6 of its 1/8.
    a, b, c = 5, 4, 3
    _, volume = surface_and_volume(np.ones((a, b, c), bool), (2.0, 1.0, 0.5))
    inner = (a - 1) * (b - 1) * (c - 1)
    faces = (
        (a - 1) * (b - 1) + (a - 1) * (c - 1) + (b - 1) * (c - 1)
    )  # slabs half a voxel thick, on two sides
    edges = 4 * (a - 1 + b - 1 + c - 1) / 8
    assert volume == pytest.approx(inner + faces + edges + 8 / 48)


def test_area_and_volume_are_those_of_a_mesh_of_skimage():
    x, y, z = np.indices((24, 22, 30))
    mask = ((x - 11) / 9) ** 2 + ((y - 10) / 8) ** 2 + ((z - 14) / 12) ** 2 < 1
    spacing = (1.0, 1.5, 2.0)
    area, volume = surface_and_volume(mask, spacing)
    points, triangles, _, _ = marching_cubes(
        np.pad(mask, 1).astype(float), 0.5, spacing=spacing, method="lorensen"
    )
    corners = points[triangles]
    enclosed = abs(np.sum(corners[:, 0] * np.cross(corners[:, 1], corners[:, 2]))) / 6
    assert area == pytest.approx(mesh_surface_area(points, triangles), rel=1e-6)
    assert volume == pytest.approx(enclosed, rel=1e-4)


def test_an_empty_mask_has_neither():
    assert surface_and_volume(np.zeros((3, 4, 5), bool), (1.0, 1.0, 1.0)) == (0.0, 0.0)
