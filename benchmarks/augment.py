"""Times the augmentation of a training patch against equivalent dictionary transforms of MONAI.

    OMP_NUM_THREADS=1 python benchmarks/augment.py [--rounds 7] [--patches 12]

Uses one thread, like a worker of the data loader. Rounds alternate (medseg, MONAI, medseg, ...); a round
is the mean over the same number of patches, each with its own seed. MONAI has no ghosting or motion
transform, so they are included only on medseg's side.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from monai.transforms import (
    Compose,
    Rand2DElasticd,
    Rand3DElasticd,
    RandAdjustContrastd,
    RandAffined,
    RandBiasFieldd,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandShiftIntensityd,
    RandSimulateLowResolutiond,
)

from medseg.preprocessing.augmentation import augment
from medseg.recipe import Augment, Recipe

PATCHES = ((96, 96, 96), (64, 64, 64), (256, 256))
KEYS = ("image", "label")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--patches", type=int, default=12)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print("| patch | changes | medseg ms: min / median / max | MONAI ms: min / median / max | ratio |")
    print("|---|---|---:|---:|---:|")
    for size in PATCHES:
        for name, probability in (("light", None), ("full", None), ("full", 1.0)):
            recipe = recipe_of(size, name, probability)
            given = {"image": torch.rand(1, *size), "label": (torch.rand(2, *size) > 0.5).float()}
            both = [augment(recipe), monai(recipe.augment, len(size))]
            times: list[list[float]] = [[], []]
            for _ in range(arguments.rounds):
                for change, mine in zip(both, times, strict=True):
                    mine.append(mean_ms(change, given, arguments.patches))
            shown = name if probability is None else f"{name}, all of them at once"
            cells = [f"{min(t):.1f} / {statistics.median(t):.1f} / {max(t):.1f}" for t in times]
            ratio = statistics.median(times[1]) / statistics.median(times[0])
            print(
                f"| {'x'.join(map(str, size))} | {shown} | {cells[0]} | {cells[1]} | {ratio:.1f} |",
                flush=True,
            )


def mean_ms(change: Compose, given: dict[str, torch.Tensor], patches: int) -> float:
    """Mean time per patch in milliseconds; every round uses the same seeds."""
    started = time.perf_counter()
    for seed in range(patches):
        change.set_random_state(seed=seed)
        change(given)
    return (time.perf_counter() - started) * 1000 / patches


def recipe_of(size: tuple[int, ...], name: str, probability: float | None) -> Recipe:
    """An MR recipe at 1.5 mm with an augmentation preset, at the preset's or the given probability."""
    data = {
        "name": "benchmark",
        "modality": "MR",
        "channels": ["T1"],
        "labels": [{"name": "one", "values": [1]}, {"name": "two", "values": [2]}],
        "prepare": {"spacing_mm": [1.5, 1.5, 1.5], "intensity": {"kind": "percentile"}},
        "patch": {"size": size},
        "network": {"widths": [8, 16]},
        "augment": name,
        "train": {"epochs": 1, "steps_per_epoch": 1, "batch_size": 1},
    }
    recipe = Recipe.checked(data)
    if probability is None:
        return recipe
    return Recipe.checked(data | {"augment": recipe.augment.model_dump() | {"probability": probability}})


def monai(rules: Augment, dims: int) -> Compose:
    """MONAI's transforms with the same parameters; elastic and affine share one resampling."""
    often = rules.probability
    turn = math.radians(rules.rotate_degrees)
    place = {
        "rotate_range": (turn,) * (1 if dims == 2 else 3),
        "scale_range": (rules.scale,) * dims,
        "mode": ("bilinear", "nearest"),
        "padding_mode": "border",
    }
    steps: list[Callable[..., object]] = [RandFlipd(KEYS, 0.5, spatial_axis=a) for a in rules.flip_axes]
    if not rules.elastic_mm:
        steps.append(RandAffined(KEYS, prob=often, **place))
    elif dims == 2:
        most = rules.elastic_mm / 1.5
        distance = rules.elastic_grid_mm / 1.5
        steps.append(Rand2DElasticd(KEYS, (distance, distance), (0, most), prob=often, **place))
    else:
        # MONAI blurs white noise; half the control distance gives about the width of medseg's spline.
        wide = rules.elastic_grid_mm / 1.5 / 2
        steps.append(Rand3DElasticd(KEYS, (wide / 2, wide), (0, 100), prob=often, **place))
    if rules.bias_field:
        steps.append(RandBiasFieldd("image", coeff_range=(0, rules.bias_field), prob=often))
    if rules.blur_voxels:
        sds = (0.01, rules.blur_voxels)
        steps.append(RandGaussianSmoothd("image", sds, sds, sds, prob=often))
    if rules.low_resolution:
        zoom = (1 - rules.low_resolution, 1)
        back = "bilinear" if dims == 2 else "trilinear"
        steps.append(RandSimulateLowResolutiond("image", prob=often, zoom_range=zoom, upsample_mode=back))
    steps += [
        RandAdjustContrastd("image", often, gamma=(1 - rules.gamma, 1 + rules.gamma)),
        RandScaleIntensityd("image", rules.contrast, often),
        RandShiftIntensityd("image", rules.brightness, prob=often),
        RandGaussianNoised("image", often, std=rules.noise_sd),
    ]
    return Compose(steps)


if __name__ == "__main__":
    main()
