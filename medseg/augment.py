"""Random changes of training patches, through MONAI."""

from __future__ import annotations

import math
from typing import Any

from monai.transforms.compose import Compose
from monai.transforms.intensity.dictionary import (
    RandAdjustContrastd,
    RandGaussianNoised,
    RandScaleIntensityd,
    RandShiftIntensityd,
)
from monai.transforms.spatial.dictionary import RandAffined, RandFlipd

from medseg.recipe import Augment


def augment(rules: Augment, spatial_dims: int) -> Compose:
    """The random MONAI transform of a patch ``{"image": ..., "label": ...}``.

    Both are float32 (C, *patch); for 2D the neighbouring slices are channels and change
    together. Its randomness is decided by ``set_random_state`` alone.

    Args:
        rules: What to change and how much. Flips across the midline of sided labels are
            refused by the recipe, so they cannot be asked for here.
        spatial_dims: 2 or 3.
    """
    both = ("image", "label")
    often = rules.probability
    steps: list[Any] = [
        RandFlipd(both, 0.5, spatial_axis=axis) for axis in rules.flip_axes if axis < spatial_dims
    ]
    if rules.rotate_degrees or rules.scale:
        turn = math.radians(rules.rotate_degrees)
        steps.append(
            RandAffined(
                both,
                prob=often,
                rotate_range=turn if spatial_dims == 2 else (turn, turn, turn),
                scale_range=(rules.scale,) * spatial_dims,
                mode=("bilinear", "nearest"),
                padding_mode="border",
            )
        )
    if rules.gamma:
        steps.append(RandAdjustContrastd("image", often, gamma=(1 - rules.gamma, 1 + rules.gamma)))
    if rules.contrast:
        steps.append(RandScaleIntensityd("image", rules.contrast, often))
    if rules.brightness:
        steps.append(RandShiftIntensityd("image", rules.brightness, prob=often))
    if rules.noise_sd:
        steps.append(RandGaussianNoised("image", often, std=rules.noise_sd))
    return Compose(steps)
