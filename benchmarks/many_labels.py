"""Time and memory of a training case with many labels: preparing it, cutting and augmenting its
patches, and validating it.

    python benchmarks/many_labels.py --labels 117 --size 64 200
    python benchmarks/many_labels.py --labels 117 --size 64 --loss

Every size is measured in a process of its own. The case is a CT of random cells, one for each label, on
voxels of 1.5 mm that are prepared to 2 mm, or to 1.5 mm with ``--same``; labels are mutually exclusive. It
prints the memory that preparing adds to that of the imports, what validating adds to that, and the size of
the entry of the cache. With ``--loss``: seconds of the processor and memory of the loss and gradient of a
patch of that size, and a digest of the gradient. An earlier version is measured with PYTHONPATH.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

import medseg
from medseg.datasets.manifest import Case
from medseg.training.case_cache import CachedCase, cached
from medseg.training.deep_supervision import Supervised
from medseg.training.lightning_module import SegmentationModule
from medseg.training.losses import DiceCE
from medseg.training.patches import Patches


def peak_mb() -> float:
    """Largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write_case(folder: Path, labels: int, size: int) -> Case:
    """A CT and its label map: cells around random points in a ball, made on a coarse grid."""
    random = np.random.default_rng(0)
    coarse = np.stack(np.meshgrid(*[np.linspace(-1, 1, 64)] * 3, indexing="ij"), -1)
    points = random.normal(size=(labels, 3))
    points *= (random.random((labels, 1)) ** (1 / 3)) * 0.9 / np.linalg.norm(points, axis=1, keepdims=True)
    nearest = np.stack([((coarse - point) ** 2).sum(-1) for point in points]).argmin(0) + 1
    nearest[np.linalg.norm(coarse, axis=-1) > 0.9] = 0
    at = np.arange(size) * 64 // size
    truth = nearest[np.ix_(at, at, at)].astype(np.uint8)
    scan = (40 + truth + random.normal(0, 20, truth.shape)).astype(np.int16)
    grid = medseg.Grid.from_spacing(truth.shape, (1.5, 1.5, 1.5))
    names = [medseg.Label(name=f"part_{n}", values=(n,)) for n in range(1, labels + 1)]
    medseg.Volume(scan, grid).save(folder / "ct.nii.gz")
    medseg.Mask(truth, grid, tuple(names)).save(folder / "truth.nii.gz")
    return Case(
        id="a", patient="a", images=(folder / "ct.nii.gz",), label=folder / "truth.nii.gz", split="train"
    )


def validation_mb(recipe: medseg.Recipe, case: CachedCase) -> dict[str, float]:
    """Seconds, and MB above the present peak, of segmenting the case with a network of one convolution."""
    module = SegmentationModule(recipe, "")
    module.network = torch.nn.Conv3d(1, len(recipe.labels), 1)
    image = torch.from_numpy(case.load().image)
    before, started = peak_mb(), time.perf_counter()
    with torch.no_grad():
        masks = module.segment(image)
    assert masks.shape == (len(recipe.labels), *image.shape[1:])
    return {"validate_s": time.perf_counter() - started, "validate_mb": peak_mb() - before}


def loss_and_gradient(labels: int, size: int) -> dict[str, float | str]:
    """The processor's seconds, and MB above the present peak, of the loss of one patch and its gradient."""
    torch.manual_seed(0)
    classes = torch.randint(0, labels + 1, (1, 1, size, size, size)).float()
    table = torch.cat([torch.zeros(1, labels), torch.eye(labels)])[None].to(torch.int8)
    logits = torch.randn(1, labels, size, size, size, requires_grad=True)
    loss = Supervised(DiceCE([1.0] * labels, 1.0, 1.0), (1.0,))
    before, started = peak_mb(), time.process_time()
    loss(logits, classes, table).backward()
    found = {"loss_cpu_s": time.process_time() - started, "loss_mb": peak_mb() - before}
    assert logits.grad is not None
    digest = hashlib.sha256(logits.grad.numpy().tobytes()).hexdigest()[:12]
    return {**found, "logits_mb": logits.nbytes / 2**20, "gradient": digest}


def measured(labels: int, size: int, spacing_mm: float) -> dict[str, float]:
    """Seconds and MB of one case."""
    recipe = medseg.Recipe.checked(
        {
            "name": "many",
            "modality": "CT",
            "channels": ["ct"],
            "labels": [{"name": f"part_{n}", "values": [n]} for n in range(1, labels + 1)],
            "loss": {"kind": "dice_ce"},
            "prepare": {
                "spacing_mm": [spacing_mm] * 3,
                "intensity": {"kind": "window", "low_hu": -200, "high_hu": 300},
            },
            "patch": {"size": [64, 64, 64] if size >= 128 else [32, 32, 32]},
            "augment": "full",
            "train": {"epochs": 1, "steps_per_epoch": 1, "batch_size": 1},
        }
    )
    with tempfile.TemporaryDirectory() as name:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as other:  # its memory does not count
            case = other.submit(write_case, Path(name), labels, size).result()
        before, started = peak_mb(), time.perf_counter()
        entry = cached(case, recipe, Path(name) / "cache")
        prepared = time.perf_counter() - started
        added = peak_mb() - before
        entry_mb = sum(path.stat().st_size for path in entry.folder.iterdir()) / 2**20
        patches = Patches([entry], recipe)
        started = time.perf_counter()
        for number in range(10):
            patches[0, number]
        patch_s = (time.perf_counter() - started) / 10
        validated = validation_mb(recipe, entry)
    return {"prepare_s": prepared, "prepare_mb": added, "cache_mb": entry_mb, "patch_s": patch_s, **validated}


def main() -> None:
    """Prints a line of JSON for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--labels", type=int, default=117)
    parser.add_argument("--size", type=int, nargs="+", default=[64, 200])
    parser.add_argument("--same", action="store_true", help="prepare to the voxels of the scan")
    parser.add_argument("--loss", action="store_true", help="the loss of a patch of --size alone")
    chosen = parser.parse_args()
    if chosen.loss:
        print(json.dumps({"size": chosen.size[0], **loss_and_gradient(chosen.labels, chosen.size[0])}))
        return
    if len(chosen.size) == 1:
        spacing_mm = 1.5 if chosen.same else 2.0
        found = measured(chosen.labels, chosen.size[0], spacing_mm)
        print(json.dumps({"size": chosen.size[0], **{k: round(v, 3) for k, v in found.items()}}))
        return
    for size in chosen.size:
        extra = ["--same"] if chosen.same else []
        command = [sys.executable, __file__, "--labels", str(chosen.labels), "--size", str(size), *extra]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
