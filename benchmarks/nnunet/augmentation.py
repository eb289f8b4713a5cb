"""Patches changed by batchgeneratorsv2 with fixed parameters: ``augmentation.py OUTPUT.npz``.

Runs in an environment with nnunetv2 (``make peers``). Each entry ``name`` comes with its input, ``image``.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.spatial import (
    SpatialTransform,
    _convert_my_grid_to_grid_sample_grid,
    _create_centered_identity_grid2,
    create_affine_matrix_2d,
    create_affine_matrix_3d,
)

ONE = torch.tensor([0])


def main(output: str) -> None:
    made = {}
    for dims, shape in ((2, (23, 30)), (3, (17, 22, 13))):
        image = torch.randn((1, *shape), generator=torch.Generator().manual_seed(dims)) * 2 - 1
        made[f"image_{dims}"] = image.numpy().copy()
        for name, changed in intensities(image, dims).items():
            made[f"{name}_{dims}"] = changed.numpy()
    made.update(moved())
    np.savez(output, **made)


def intensities(image: torch.Tensor, dims: int) -> dict[str, torch.Tensor]:
    sigmas = [0.9, 0.5, 0.7][:dims]
    scales = torch.tensor([[0.63] * dims])
    flat = torch.tensor([[1.0] + [0.63] * (dims - 1)])
    lower = SimulateLowResolutionTransform((0.5, 1), False, True, None)
    made = {
        "brightness": MultiplicativeBrightnessTransform((0.75, 1.25), False)._apply_to_image(
            image.clone(), apply_to_channel=ONE, multipliers=torch.tensor([1.2])
        ),
        "contrast": ContrastTransform((0.75, 1.25), True, False)._apply_to_image(
            image.clone(), apply_to_channel=ONE, multipliers=torch.tensor([1.2])
        ),
        "blur": GaussianBlurTransform((0.5, 1))._apply_to_image(
            image.clone(), apply_to_channel=torch.tensor([True]), sigmas=[sigmas]
        ),
        "low_resolution": lower._apply_to_image(image.clone(), apply_to_channel=ONE, scales=scales),
        "flat_low_resolution": lower._apply_to_image(image.clone(), apply_to_channel=ONE, scales=flat),
    }
    for name, inverted in (("gamma", False), ("inverted_gamma", True)):
        made[name] = GammaTransform((0.7, 1.5), 1, False, 1, 1)._apply_to_image(
            image.clone(),
            apply_to_channel=ONE,
            retain_stats=torch.tensor([True]),
            invert_image=torch.tensor([inverted]),
            gamma=torch.tensor([1.4]),
        )
    return made


def moved() -> dict[str, np.ndarray]:
    """Rotated and scaled patches, cut from the middle of larger images."""
    made = {}
    for dims, size, larger in ((2, (16, 12), (40, 40)), (3, (12, 10, 8), (36, 36, 36))):
        image = torch.randn((1, *larger), generator=torch.Generator().manual_seed(dims))
        matrix = (
            create_affine_matrix_2d(0.4, [1.3] * 2)
            if dims == 2
            else create_affine_matrix_3d([0.3, -0.2, 0.4], [1.3] * 3)
        )
        grid = _create_centered_identity_grid2(size).float() @ torch.from_numpy(matrix.T).float()
        grid = _convert_my_grid_to_grid_sample_grid(grid, larger)
        spatial = SpatialTransform(size, 0, False)
        made[f"larger_{dims}"] = image.numpy()
        made[f"moved_{dims}"] = spatial._apply_to_image(image, grid=grid).numpy()
    return made


if __name__ == "__main__":
    main(sys.argv[1])
