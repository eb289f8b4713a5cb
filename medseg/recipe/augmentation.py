"""The recipe's section ``augment``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from medseg.recipe.part import Fraction, NotNegative, Part


class Augment(Part):
    """Random changes of training patches; 0 switches each of them off.

    Attributes:
        flip_axes: Prepared axes (0 R-L, 1 A-P, 2 S-I) along which half of the patches are flipped.
        rotate_degrees: Largest rotation in the axial plane (2D) or about each axis (3D).
        scale: Largest relative change of size.
        noise_sd: Largest standard deviation of Gaussian noise, in normalised intensity.
        gamma: Largest relative change of the exponent of intensity in 0..1.
        brightness: Largest shift of normalised intensity.
        contrast: Largest relative change of contrast.
        probability: How often each of these is applied.
    """

    flip_axes: tuple[Literal[0, 1, 2], ...] = ()
    rotate_degrees: Annotated[float, Field(ge=0, le=180)] = 15.0
    scale: Annotated[float, Field(ge=0, lt=0.9)] = 0.1
    noise_sd: NotNegative = 0.05
    gamma: Annotated[float, Field(ge=0, lt=1)] = 0.2
    brightness: NotNegative = 0.05
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.1
    probability: Fraction = 0.5
