"""Random augmentation of training patches as MONAI transforms, in one table.

To add one, write a :class:`RandomTransform` with its row in ``ROWS`` of the module of its group, and add its
field to :mod:`medseg.recipe.augmentation`.

The result depends on the patch, the seed given to ``set_random_state`` and the kind of device, and not on
the worker, the number of threads or any global state. Every transform works on the device of its tensors:
only random numbers, never voxels, pass between CPU and GPU.
"""

from __future__ import annotations

from monai.transforms.compose import Compose

from medseg.preprocessing.augmentation import intensity, mr_artefacts, nnunet, resolution, spatial
from medseg.preprocessing.augmentation.spatial import movement
from medseg.preprocessing.augmentation.transform import Augmentation, Patch, RandomTransform
from medseg.recipe import NnunetAugment, Recipe

__all__ = ["REGISTRY", "Augmentation", "Patch", "RandomTransform", "augment", "movement"]

# In the order of their origin: patient, scanner, image, noise.
REGISTRY: dict[str, Augmentation] = {
    **spatial.ROWS,
    **mr_artefacts.ROWS,
    **resolution.ROWS,
    **intensity.ROWS,
}


def augment(recipe: Recipe) -> Compose:
    """The random MONAI transform of a patch ``{"image": ..., "label": ...}``.

    Args:
        recipe: Its section ``augment`` defines the changes and their strength, and its channels, labels
            and voxel size what they refer to.

    Returns:
        A `Compose` that maps float32 ``image`` (in_channels, *patch) and its labels, in either form of
        :data:`Patch`, to tensors of the same form, on the same device, without changing its input. It is
        determined by ``set_random_state`` alone. It lacks what :func:`movement` does while patches are cut.
    """
    rules = recipe.augment
    if isinstance(rules, NnunetAugment):
        return Compose(nnunet.transforms(recipe))
    chosen = [name for name, row in REGISTRY.items() if any(getattr(rules, f) for f in row.fields)]
    return Compose(
        [REGISTRY[name].build(recipe) for name in chosen if not (name == "deform" and rules.larger_cut)]
    )
