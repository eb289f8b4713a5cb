"""Imported models against nnU-Net and lungmask themselves, which run in an environment of their own.

``make peers`` sets it up and runs these tests; without it they are skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "nnunet"))
from ties import Ties

import medseg
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
    "cropped", "small", "mr", "zscore", "rescaled", "ignore", "before_22", "inherited", "ensemble",
)  # fmt: skip


LUNGMASK = ("r231", "lobes", "single", "small", "large", "air", "trained", "trained_lobes")


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
    if engine == "torch" or np.any(mask.array != truth):
        ties = Ties(folder / "model.safetensors", [medseg.read(scan) for scan in scans])
        found = {"regions": ties.of_regions, "ensemble": ties.of_mean}.get(case, ties.of_classes)
        assert np.all(found(truth))
        assert np.mean(found(np.roll(truth, 5, 0))) < 0.5  # another mask is not explained


@pytest.mark.filterwarnings("ignore::medseg.InputWarning")
def test_a_cascade_differs_only_where_a_tie_of_its_low_resolution_spreads(tmp_path):
    """Its low resolution differs in ties; given nnU-Net's mask of that, its full resolution does as well."""
    run("oracle.py", tmp_path, "cascade")
    folder, scan, made = tmp_path / "cascade", tmp_path / "cascade" / "scan_0000.nii.gz", {}
    for name, target, most in (("3d_lowres", "first/scan", 5), ("3d_cascade_fullres", "mask", 100)):
        model = folder / f"{name}.safetensors"
        medseg.import_model(folder / "model", configuration=name, mirror=False, output=model)
        mask = medseg.segment(scan, model=model, engine="torch")
        made[name] = np.asarray(medseg.read(folder / f"{target}.nii.gz").array)
        assert np.count_nonzero(mask.array != made[name]) <= most
    for number, (name, truth) in enumerate(made.items()):
        ties = Ties(folder / f"{name}.safetensors", [medseg.read(scan)])
        previous = made["3d_lowres"] if number else None
        found = ties.of_classes(truth, number, previous)
        assert np.all(found)
        assert len(found) <= 5


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
