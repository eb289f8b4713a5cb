"""Agreement of the masks written by run.py with a reference: the same windows in eager torch, restored whole.

    python benchmarks/speed/agreement.py --scan SCAN --model MODEL MASK [MASK ...]

The reference keeps all logits of the prepared scan and all probabilities on the scan's grid in memory, in
float32, restores them with scipy and assigns labels last. It supports only recipes with exclusive labels,
without crop and postprocessing. Prints the Dice of each label and the fraction of voxels that differ for
each mask. Masks of other toolkits also differ because of their grid and interpolation.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

import medseg
from medseg.inference.label_decision import LabelDecision
from medseg.inference.model import Model
from medseg.inference.sliding_window import logits
from medseg.preprocessing.preparation import prepare


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scan", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("masks", type=Path, nargs="+")
    arguments = parser.parse_args()
    model = Model.load(arguments.model)
    reference = whole(model, medseg.read(arguments.scan))
    names = [label.name for label in model.recipe.labels]
    for path in arguments.masks:
        found, scores = np.asarray(medseg.read(path).array), []
        # Ours has the labels' values, those of the peers their numbers.
        for number, label in enumerate(model.recipe.labels, start=1):
            found = np.where(found == label.value, number, found)
        for number, name in enumerate(names, start=1):
            one, other = found == number, reference == number
            scores.append(f"{name} {2 * (one & other).sum() / max(one.sum() + other.sum(), 1):.6f}")
        print(f"{path.name}: {', '.join(scores)}, {np.mean(found != reference):.2e} of voxels differ")


def whole(model: Model, scan: medseg.Volume) -> np.ndarray:
    """Label number of each voxel, (X, Y, Z)."""
    recipe = model.recipe
    prepared = prepare(recipe, [scan])
    found = logits(
        torch.from_numpy(prepared.image),
        model.networks()[0],
        labels=len(recipe.labels),
        patch=recipe.patch,
        predict=recipe.predict,
        divisor=recipe.network.divisor,
    )
    place = np.linalg.inv(prepared.grid.affine) @ scan.grid.affine
    probabilities = np.stack(
        [
            ndimage.affine_transform(
                values, place[:3, :3], place[:3, 3], scan.grid.shape, order=1, mode="nearest"
            )
            for values in LabelDecision.from_recipe(recipe).probabilities(found).numpy()
        ]
    )
    none = 1 - probabilities.sum(0, keepdims=True)
    best: np.ndarray = np.concatenate([none, probabilities]).argmax(0)
    return best


if __name__ == "__main__":
    main()
