"""The recipe's sections ``predict`` and ``postprocess``: from the network to the mask."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from medseg.images.label import Label
from medseg.recipe.section import Count, Fraction, NotNegative, Section, Size


class Predict(Section):
    """The sliding window.

    Attributes:
        overlap: Share of a window that its neighbour covers as well; 0.5 as in nnU-Net.
        window_batch: Windows run through the network at once.
        whole_planes: 2D: one window as large as the plane, instead of windows of the patch's size. Cheaper
            where planes are a little larger than a patch, and without seams; for networks with batch
            normalisation or none, whose output does not depend on the size of the window.
        threshold: A voxel belongs to a label where its probability is at least this.
    """

    overlap: Annotated[float, Field(ge=0, le=0.9)] = 0.5
    window_batch: Size = 1
    whole_planes: bool = False
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5


class Postprocess(Section):
    """Cleaning of each label on the source grid.

    Attributes:
        divide: Where the recipe's one label is both lungs: the labels of the right and of the left one,
            into which its mask is divided before each is cleaned, see
            :func:`medseg.inference.lungs.split_left_right`.
            A network that need not tell sides learns from far fewer patients, and cannot exchange them.
        keep_components: Keep this many largest components of each label; None keeps all.
        fill_holes: Fill holes that do not reach the outside.
        min_volume_ml: Remove components smaller than this.
        min_share: Remove components smaller than this share of the label's largest one, where their
            number is not known: the field of view may cut an organ into parts.
    """

    divide: tuple[Label, Label] | None = None
    keep_components: Count | None = None
    fill_holes: bool = False
    min_volume_ml: NotNegative = 0.0
    min_share: Fraction = 0.0
