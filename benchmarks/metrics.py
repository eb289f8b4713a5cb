"""Time and memory to score a 512 x 512 x 300 pair of masks (lungs and heart), compared with MONAI's metrics.

    python benchmarks/metrics.py

Each side runs in its own process; medseg runs first and last.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time

import numpy as np

from medseg.evaluation.scoring import score
from medseg.images.grid import Grid
from medseg.images.volume import Mask
from medseg.phantom.thorax import Thorax


def pair() -> tuple[Mask, Mask]:
    """Ground truth of a phantom on a fine grid, and a copy that is shifted by a voxel and slightly larger."""
    spacing_mm = (0.7, 0.7, 1.0)
    grid = Grid.from_spacing((512, 512, 300), spacing_mm, origin_mm=(-179, -179, -150))
    truth = Thorax().truth(grid)
    moved = np.roll(truth.array, (1, 2, 1), (0, 1, 2))
    labels = tuple(label for label in truth.labels if label.name in ("right_lung", "left_lung", "heart"))
    return Mask(moved, grid, labels), Mask(truth.array, grid, labels)


def ours() -> dict[str, list[float]]:
    prediction, truth = pair()
    started = time.perf_counter()
    found = score(prediction, truth)
    return {
        "seconds": [time.perf_counter() - started],
        "hd95": [s.hd95_voxel_mm for s in found],
        "dice": [s.dice for s in found],
    }


def monai() -> dict[str, list[float]]:
    import torch
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.meandice import compute_dice
    from monai.metrics.surface_dice import compute_surface_dice
    from monai.metrics.surface_distance import compute_average_surface_distance

    masks = [
        torch.from_numpy(np.stack([mask.of(label.name) for label in mask.labels])[None]) for mask in pair()
    ]
    spacing_mm = (0.7, 0.7, 1.0)
    started = time.perf_counter()
    dice = compute_dice(*masks)[0].tolist()
    rules = {"include_background": True, "spacing": spacing_mm}
    hd95 = compute_hausdorff_distance(*masks, percentile=95, **rules)[0].tolist()
    compute_surface_dice(*masks, class_thresholds=[3.0] * len(dice), **rules)
    compute_average_surface_distance(*masks, symmetric=True, **rules)
    return {"seconds": [time.perf_counter() - started], "hd95": hd95, "dice": dice}


def main() -> None:
    if len(sys.argv) > 1:
        result = {"ours": ours, "monai": monai}[sys.argv[1]]()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(result | {"peak_mb": [peak]}))
        return
    for side in ("ours", "monai", "ours", "monai"):
        done = subprocess.run(
            [sys.executable, __file__, side], capture_output=True, text=True, check=True
        ).stdout
        print(side, {name: [round(v, 4) for v in values] for name, values in json.loads(done).items()})


if __name__ == "__main__":
    main()
