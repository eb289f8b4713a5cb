"""The recipe's sections ``predict`` and ``postprocess``: from the network to the mask."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from medseg.images.label import Label
from medseg.recipe.section import Count, Fraction, NotNegative, Section, Size


class Predict(Section):
    """Sliding-window inference.

    Attributes:
        overlap: Fraction of a window that overlaps with its neighbour; 0.5 as in nnU-Net.
        window_batch: Number of windows in one batch.
        whole_planes: 2D: one window as large as the plane, instead of windows of the patch's size. This
            avoids seams and is cheaper if planes are a little larger than a patch. Only for networks with
            batch normalisation or none, whose output does not depend on the size of the window.
        threshold: Smallest probability at which a voxel belongs to a label.
    """

    overlap: Annotated[float, Field(ge=0, le=0.9)] = 0.5
    window_batch: Size = 1
    whole_planes: bool = False
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5


class Postprocess(Section):
    """Cleaning of each label on the grid of the scan.

    Attributes:
        divide: The labels of the right and the left lung, if the recipe's one label covers both. The mask
            is divided into them before each is cleaned, see :func:`medseg.inference.lungs.split_left_right`.
            A network that need not distinguish sides learns from far fewer patients and cannot exchange them.
        keep_components: Number of largest components to keep of each label; None keeps all.
        fill_holes: Whether to fill enclosed holes.
        min_volume_ml: Components smaller than this are removed.
        min_share: Components smaller than this fraction of the label's largest one are removed. Useful
            if their number is unknown, because the field of view may cut an organ into parts.
    """

    divide: tuple[Label, Label] | None = None
    keep_components: Count | None = None
    fill_holes: bool = False
    min_volume_ml: NotNegative = 0.0
    min_share: Fraction = 0.0
