"""Random changes of training patches, through MONAI. One table; a new row stands in the module of its group.

To add one, write a :class:`RandomTransform` and its row in ``ROWS`` of its module, and give it a field in
:mod:`medseg.recipe.augmentation`.

The result is decided by the patch, the seed given to ``set_random_state`` and the kind of device;
not by the worker, the number of threads or any global state. Every row works on the device of its
tensors: only drawn numbers, never voxels, pass between CPU and GPU.
"""

from __future__ import annotations

from monai.transforms.compose import Compose

from medseg.preprocessing.augmentation import intensity, mr_artefacts, resolution, spatial
from medseg.preprocessing.augmentation.transform import Augmentation, Patch, RandomTransform
from medseg.recipe import Recipe

__all__ = ["REGISTRY", "Augmentation", "Patch", "RandomTransform", "augment"]

# In the order in which they come about: the patient, the scanner, the picture, the noise.
REGISTRY: dict[str, Augmentation] = {
    **spatial.ROWS,
    **mr_artefacts.ROWS,
    **resolution.ROWS,
    **intensity.ROWS,
}


def augment(recipe: Recipe) -> Compose:
    """The random MONAI transform of a patch ``{"image": ..., "label": ...}``.

    Args:
        recipe: Its section ``augment`` says what changes and how much; channels, labels and voxel
            size say what that means.

    Returns:
        A `Compose` that maps float32 ``image`` (in_channels, *patch) and ``label`` (L, *patch) of
        1, 0 and -1 to the same, on their own device, without changing its input. Its randomness
        is decided by ``set_random_state`` alone.
    """
    rules = recipe.augment
    return Compose(
        [row.build(recipe) for row in REGISTRY.values() if any(getattr(rules, f) for f in row.fields)]
    )
