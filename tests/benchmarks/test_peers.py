"""Imported models against nnU-Net and lungmask themselves, which run in an environment of their own.

``make peers`` sets it up and runs these tests; without it they are skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

import medseg
from medseg.inference.nnunet.restoring import tiles
from medseg.inference.nnunet.windows import importance, starts
from medseg.planning.nnunet_planner import PLANNERS, make_nnunet_plan
from medseg.preprocessing.augmentation.interpolation import read_at
from medseg.preprocessing.augmentation.nnunet import (
    PatchBlur,
    PatchBrightness,
    PatchContrast,
    PatchGamma,
    PatchLowResolution,
)
from medseg.preprocessing.augmentation.spatial import placement, positions

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "benchmarks" / "nnunet"
PYTHON = Path(os.environ.get("MEDSEG_PEERS", ROOT / ".venv-peers" / "bin" / "python"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.is_file(), reason="nnU-Net and lungmask are not set up: make peers"),
]

NETWORKS = (
    "3d", "resenc", "2d", "mr", "regions", "anisotropic", "kernels", "counts", "without_bias", "resenc_2d",
    "resenc_anisotropic", "before_22", "inherited", "r231", "ltrclobes",
)  # fmt: skip
MASKS = (
    "3d", "mirror", "folds", "resenc", "regions", "2d", "anisotropic", "anisotropic_target", "transposed",
    "cropped", "small", "mr", "zscore", "rescaled", "ensemble",
)  # fmt: skip


LUNGMASK = ("r231", "lobes", "single", "small", "large", "air")


def run(script: str, *arguments: str | Path) -> None:
    made = subprocess.run(
        [PYTHON, SCRIPTS / script, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr[-2000:]


@pytest.fixture(scope="module")
def logits(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("logits")
    run("logits.py", folder)
    return folder


@pytest.mark.parametrize("case", NETWORKS)
def test_logits_of_an_imported_network_are_those_of_the_original(case, logits):
    folder = logits / case
    model = medseg.import_model(folder / "unet.pth" if (folder / "unet.pth").exists() else folder)
    truth = np.load(folder / "logits.npz")
    with torch.inference_mode():
        ours = model.networks()[0](torch.from_numpy(truth["image"])).numpy()
    assert np.abs(truth["logits"]).max() > 0.1
    assert np.abs(ours - truth["logits"]).max() < 1e-5


@pytest.mark.filterwarnings("ignore::medseg.InputWarning")  # noise is no chest
@pytest.mark.parametrize("engine", ["torch", "openvino"])
@pytest.mark.parametrize("case", MASKS)
def test_masks_of_an_imported_model_are_those_of_nnunet(case, engine, tmp_path):
    """Its sums have 16 bits: a tie may fall the other way, so of 60,000 voxels two may differ."""
    run("oracle.py", tmp_path, case)
    folder = tmp_path / case
    medseg.import_model(
        folder / "model",
        configuration="3d_fullres,2d" if case == "ensemble" else None,
        mirror=case in ("mirror", "2d"),
        output=folder / "model.safetensors",
    )
    scans = sorted(folder.glob("scan_*.nii.gz"))
    mask = medseg.segment(
        scans[0] if len(scans) == 1 else scans, model=folder / "model.safetensors", engine=engine
    )
    truth = medseg.read(folder / "mask.nii.gz").array
    assert len(np.unique(truth)) > 2
    assert np.count_nonzero(mask.array != truth) <= 2
    if case not in ("2d", "regions", "ensemble"):
        volumes = [medseg.read(scan) for scan in scans]
        gaps, limits = gaps_of_differing_voxels(folder / "model.safetensors", volumes, truth)
        assert np.all(gaps <= limits)


def gaps_of_differing_voxels(
    model: Path, scans: list[medseg.Volume], truth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where medseg's class is not nnU-Net's: how far apart the logits are, and how far ties reach."""
    case = medseg.Segmenter(model, engine="torch")._runtime.prepare(scans)
    place, largest = case._frames[0], [0.0]

    def watched(network):
        def run(window):
            logits = network(window)
            largest[0] = max(largest[0], float(np.abs(logits).max()))
            return logits

        return run

    stage = replace(case._stages[0], networks=[watched(each) for each in case._stages[0].networks])
    theirs, found = place.view(truth)[place.box], []
    for tile in case._tiles(stage, place, case._input(0)):
        logits = np.stack([tile.logits(head) for head in range(stage.heads)])
        wanted = np.take_along_axis(logits, theirs[tile.place][None].astype(int), axis=0)[0]
        found.append((tile.place, logits.max(axis=0) - wanted, logits.argmax(axis=0) != theirs[tile.place]))
    rounding = rounding_of_sums(place.shape, stage.window, largest[0], len(stage.networks))
    # The interpolated logits are rounded once more; two classes may be off in opposite directions.
    limits = [
        2 * (1.001 * tile.logits(0) + spacing(largest[0]))
        for tile in tiles([(0, rounding[None])], place, stage.rules)
    ]
    gaps = [gap[differs] for _, gap, differs in found]
    return np.concatenate(gaps), np.concatenate([x[d] for x, (_, _, d) in zip(limits, found, strict=True)])


def rounding_of_sums(shape: tuple, window: tuple, largest: float, folds: int) -> np.ndarray:
    """How far two programs' mean logits in 16 bits can be apart, although they add up the same windows.

    A voxel in n windows has n rounded additions. Where the terms differ in their last bit, each addition may
    round to neighbouring numbers; no partial sum exceeds W times the largest logit of a window, W being the
    sum of its weights. Then come the division by W, and the mean of the folds.
    """
    size = np.maximum(shape, window)
    weights, count = np.zeros(size, np.float32), np.zeros(size, np.float32)
    for at in product(*(starts(n, w, 0.5) for n, w in zip(size.tolist(), window, strict=True))):
        part = tuple(slice(first, first + w) for first, w in zip(at, window, strict=True))
        weights[part] += importance(tuple(window)).astype(np.float32)
        count[part] += 1
    off = count * spacing(weights * largest) / weights + spacing(largest)
    off += (folds - 1) * spacing(folds * largest) / folds + (folds > 1) * spacing(largest)
    inner = tuple(slice((n - old) // 2, (n - old) // 2 + old) for n, old in zip(size, shape, strict=True))
    return off[inner]


def spacing(values: float | np.ndarray) -> np.ndarray:
    """Distance of neighbouring 16-bit numbers at these values."""
    return np.spacing(np.asarray(values).astype(np.float16)).astype(np.float32)


@pytest.mark.filterwarnings("ignore::medseg.InputWarning")
def test_a_cascade_differs_only_where_a_tie_of_its_low_resolution_spreads(tmp_path):
    run("oracle.py", tmp_path, "cascade")
    folder = tmp_path / "cascade"
    for name, target, most in (("3d_lowres", "first/scan", 5), ("3d_cascade_fullres", "mask", 100)):
        medseg.import_model(
            folder / "model", configuration=name, mirror=False, output=folder / f"{name}.safetensors"
        )
        model = folder / f"{name}.safetensors"
        mask = medseg.segment(folder / "scan_0000.nii.gz", model=model, engine="torch")
        truth = medseg.read(folder / f"{target}.nii.gz").array
        assert np.count_nonzero(mask.array != truth) <= most


@pytest.mark.filterwarnings("ignore::medseg.InputWarning")
@pytest.mark.parametrize("case", [*LUNGMASK, "fused"])
def test_masks_of_an_imported_lungmask_model_are_those_of_lungmask(case, tmp_path):
    run("../lungmask/oracle.py", tmp_path, case)
    folder = tmp_path / case
    fill, model = folder / "fill.pth", folder / "model.safetensors"
    medseg.import_model(folder / "model.pth", fill=fill if fill.exists() else None, output=model)
    # Nothing but air is no CT for medseg, and one for lungmask.
    method = medseg.load_segmenter(model, engine="torch", any_modality=True)
    mask = medseg.segment(folder / "scan.nii.gz", model=method)
    truth = medseg.read(folder / "mask.nii.gz").array
    assert len(np.unique(truth)) > 2 or case == "air"
    assert np.count_nonzero(mask.array != truth) == 0


COUNT, SEED = 200, 22


@pytest.fixture(scope="module")
def random_plans(tmp_path_factory) -> list[dict]:
    path = tmp_path_factory.mktemp("plans") / "plans.json"
    run("plans.py", path, str(COUNT), str(SEED))
    rows: list[dict] = json.loads(path.read_text())
    return rows


def test_plans_of_random_data_sets_are_those_of_nnunet(random_plans):
    """Everything that a plan decides, and which configurations exist."""
    assert len(random_plans) == COUNT
    assert not [row["error"] for row in random_plans if "error" in row]
    for row in random_plans:
        for name, theirs in row["plans"].items():
            ours = planned(name, row["task"])
            assert ours == {key: configuration_of(each) for key, each in configurations(theirs).items()}


def planned(name: str, task: dict) -> dict:
    made = make_nnunet_plan(PLANNERS[name], task["spacings"], task["shapes"], outputs=task["labels"] + 1)
    return {
        key: {
            "transpose": list(made.transpose),
            "spacing": list(each.spacing_mm),
            "median": list(each.median_shape),
            "patch": list(each.network.patch_size),
            "strides": [list(step) for step in each.network.strides],
            "kernels": [list(size) for size in each.network.kernels],
            "widths": list(each.network.widths),
            "batch": each.batch_size,
            "batch_dice": each.batch_dice,
        }
        for key, each in made.configurations.items()
    }


def configurations(plans: dict) -> dict:
    """Those of their own, with the plan's transposition."""
    return {
        key: each | {"transpose": plans["transpose_forward"]}
        for key, each in plans["configurations"].items()
        if "inherits_from" not in each
    }


def configuration_of(theirs: dict) -> dict:
    network = theirs["architecture"]["arch_kwargs"]
    return {
        "transpose": theirs["transpose"],
        "spacing": theirs["spacing"],
        "median": [float(n) for n in theirs["median_image_size_in_voxels"]],
        "patch": theirs["patch_size"],
        "strides": network["strides"],
        "kernels": network["kernel_sizes"],
        "widths": network["features_per_stage"],
        "batch": theirs["batch_size"],
        "batch_dice": theirs["batch_dice"],
    }


@pytest.fixture(scope="module")
def changed_patches(tmp_path_factory) -> dict[str, np.ndarray]:
    path = tmp_path_factory.mktemp("augmentation") / "patches.npz"
    run("augmentation.py", path)
    with np.load(path) as held:
        return dict(held)


CHANGES = {
    "brightness": lambda dims: (PatchBrightness(1), 1.2),
    "contrast": lambda dims: (PatchContrast(1), 1.2),
    "blur": lambda dims: (PatchBlur(1), (0.9, 0.5, 0.7)[:dims]),
    "low_resolution": lambda dims: (PatchLowResolution(1), 0.63),
    "flat_low_resolution": lambda dims: (PatchLowResolution(1, flat_axis=0), 0.63),
    "gamma": lambda dims: (PatchGamma(1), 1.4),
    "inverted_gamma": lambda dims: (PatchGamma(1, inverted=True), 1.4),
}


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", CHANGES)
def test_changes_of_patches_equal_those_of_batchgenerators(changed_patches, name, dims):
    change, drawn = CHANGES[name](dims)
    done = change.change(torch.from_numpy(changed_patches[f"image_{dims}"]), drawn).numpy()
    theirs = changed_patches[f"{name}_{dims}"]
    assert np.abs(theirs - changed_patches[f"image_{dims}"]).max() > 0.05
    np.testing.assert_allclose(done, theirs, atol=2e-5)


@pytest.mark.parametrize("dims", [2, 3])
def test_rotated_and_scaled_patches_equal_those_of_batchgenerators(changed_patches, dims):
    larger = torch.from_numpy(changed_patches[f"larger_{dims}"])
    theirs = changed_patches[f"moved_{dims}"]
    radians = np.array([0.4] if dims == 2 else [0.3, -0.2, 0.4])
    matrix = placement(np.degrees(-radians), [1 / 1.3] * dims, [0.0] * (dims * (dims - 1) // 2))
    size, ones = theirs.shape[1:], np.ones(dims)
    control = positions(size, size, matrix, np.zeros(dims), ones)
    start = [(n - length) / 2 for n, length in zip(larger.shape[1:], size, strict=True)]
    control = control + np.reshape(start, (-1, *[1] * dims))
    ours, _ = read_at(larger, larger, control, [float(n) for n in size], size)
    np.testing.assert_allclose(ours.numpy(), theirs, atol=2e-4)
