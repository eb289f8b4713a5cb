# ruff: noqa: E402, N813 - nnU-Net reads its environment when it is imported
"""Masks by nnU-Net v2 itself, of scans and tiny models that this script makes: the truth of equality tests.

Run it with a Python that has ``nnunetv2`` (not medseg's own): ``python oracle.py FOLDER [CASE ...]``. Each
case becomes a folder with ``model/`` (a training folder of nnU-Net, or several), ``scan_0000.nii.gz``, and
``mask.nii.gz``, the mask by nnU-Net's own predictor on the CPU.
"""

from __future__ import annotations

import copy
import json
import os
import sys
from pathlib import Path
from typing import Any

for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
    os.environ.setdefault(name, "unused")

import numpy as np
import SimpleITK as sitk
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

RESAMPLING = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
CT = {"mean": -310.5, "std": 402.25, "percentile_00_5": -1011.0, "percentile_99_5": 388.5, "median": -200.0}


def plain(dims: int, stages: int = 3, **changes: Any) -> dict[str, Any]:
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": [4 * 2**i for i in range(stages)],
            "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
            "kernel_sizes": [[3] * dims] * stages,
            "strides": [[1] * dims] + [[2] * dims] * (stages - 1),
            "n_conv_per_stage": [2] * stages,
            "n_conv_per_stage_decoder": [2] * (stages - 1),
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
            **changes,
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def residual(dims: int, stages: int = 3, **changes: Any) -> dict[str, Any]:
    blocks = {"n_blocks_per_stage": [1, 2, 2], "n_conv_per_stage_decoder": [1] * (stages - 1)}
    made = plain(dims, stages, **{**blocks, **changes})
    made["network_class_name"] = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
    del made["arch_kwargs"]["n_conv_per_stage"]
    return made


def configuration(**changes: Any) -> dict[str, Any]:
    return {
        "data_identifier": "unused",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [16, 24, 24],
        "median_image_size_in_voxels": [30, 40, 40],
        "spacing": [2.0, 1.5, 1.5],
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": RESAMPLING,
        "resampling_fn_seg_kwargs": {**RESAMPLING, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {**RESAMPLING, "order": 1},
        "architecture": plain(3),
        "batch_dice": True,
        **changes,
    }


def plans(configurations: dict[str, Any], channels: int = 1, transpose: tuple[int, ...] = (0, 1, 2)) -> dict:
    return {
        "dataset_name": "Dataset001_Tiny",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [2.0, 1.0, 1.0],
        "original_median_shape_after_transp": [30, 40, 40],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": list(transpose),
        "transpose_backward": [list(transpose).index(axis) for axis in range(3)],
        "configurations": configurations,
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(c): CT for c in range(channels)},
    }


def before_22(made: dict[str, Any]) -> dict[str, Any]:
    """A configuration with the fields that nnU-Net wrote before 2.2."""
    made = copy.deepcopy(made)
    given = made.pop("architecture")["arch_kwargs"]
    return made | {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": given["features_per_stage"][0],
        "unet_max_num_features": given["features_per_stage"][-1],
        "n_conv_per_stage_encoder": given["n_conv_per_stage"],
        "n_conv_per_stage_decoder": given["n_conv_per_stage_decoder"],
        "num_pool_per_axis": [2, 2, 2],
        "pool_op_kernel_sizes": given["strides"],
        "conv_kernel_sizes": given["kernel_sizes"],
    }


LABELS = {"background": 0, "lung": 1, "lesion": 2}
ANISO = {"kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]], "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]]}

# Plans, and what differs: spacing (x, y, z) and shape of the scan, folds, mirroring, labels.
CASES: dict[str, dict[str, Any]] = {
    "3d": {"plans": plans({"3d_fullres": configuration()})},
    "mirror": {"plans": plans({"3d_fullres": configuration()}), "mirror": (0, 1, 2)},
    "folds": {"plans": plans({"3d_fullres": configuration()}), "folds": 5},
    "resenc": {"plans": plans({"3d_fullres": configuration(architecture=residual(3))})},
    "regions": {
        "plans": plans({"3d_fullres": configuration()}),
        "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3},
        "order": [1, 2, 3],
    },
    "2d": {
        "plans": plans(
            {"2d": configuration(patch_size=[32, 24], spacing=[1.5, 1.25], architecture=plain(2))}
        ),
        "mirror": (0, 1),
    },
    "anisotropic": {
        "plans": plans(
            {
                "3d_fullres": configuration(
                    spacing=[5.0, 1.2, 1.2], patch_size=[8, 24, 24], architecture=plain(3, **ANISO)
                )
            }
        ),
        "spacing": (0.9, 0.9, 6.0),
        "shape": (53, 61, 17),
    },
    "anisotropic_target": {
        "plans": plans({"3d_fullres": configuration(spacing=[5.0, 1.2, 1.2], patch_size=[8, 24, 24])}),
        "spacing": (1.3, 1.3, 2.5),
    },
    "transposed": {
        "plans": plans({"3d_fullres": configuration()}, transpose=(1, 0, 2)),
        "spacing": (1.1, 3.1, 0.8),
    },
    "cropped": {"plans": plans({"3d_fullres": configuration()}), "zero_border": (5, 8, 3)},
    "small": {"plans": plans({"3d_fullres": configuration()}), "shape": (13, 47, 9)},
    "mr": {
        "plans": plans(
            {
                "3d_fullres": configuration(
                    normalization_schemes=["ZScoreNormalization", "NoNormalization"],
                    use_mask_for_norm=[True, False],
                )
            },
            channels=2,
        ),
        "channels": ["T1", "T2"],
        "zero_border": (4, 6, 2),
    },
    "zscore": {
        "plans": plans({"3d_fullres": configuration(normalization_schemes=["ZScoreNormalization"])}),
        "channels": ["MR"],
    },
    "rescaled": {
        "plans": plans(
            {
                "3d_fullres": configuration(
                    normalization_schemes=["RescaleTo01Normalization", "RGBTo01Normalization"],
                    use_mask_for_norm=[False, False],
                )
            },
            channels=2,
        ),
        "channels": ["gray", "red"],
        "rgb": True,
    },
    "ignore": {
        "plans": plans({"3d_fullres": configuration()}),
        "labels": {"background": 0, "lung": 1, "lesion": 2, "ignore": 3},
    },
    "before_22": {"plans": plans({"3d_fullres": before_22(configuration())})},
    "inherited": {
        "plans": plans({"3d_fullres": {"inherits_from": "base", "batch_size": 4}, "base": configuration()}),
        "names": ["3d_fullres"],
    },
    "ensemble": {
        "plans": plans(
            {
                "3d_fullres": configuration(),
                "2d": configuration(patch_size=[32, 24], spacing=[1.5, 1.25], architecture=plain(2)),
            }
        ),
        "combine": "mean",
    },
    "cascade": {
        "plans": plans(
            {
                "3d_lowres": configuration(spacing=[3.0, 2.5, 2.5], next_stage="3d_cascade_fullres"),
                "3d_cascade_fullres": configuration(previous_stage="3d_lowres"),
            }
        ),
        "combine": "cascade",
        "zero_border": (3, 4, 2),
    },
}


def scan(case: dict[str, Any], number: int) -> sitk.Image:
    """Smooth structures with noise, unequal along every axis, on a grid with a direction of its own."""
    rng = np.random.default_rng(17 + number)
    x, y, z = case.get("shape", (43, 52, 29))
    coarse = sitk.GetImageFromArray(rng.normal(size=(7, 9, 8)).astype(np.float32))
    coarse.SetSpacing([(n - 1) / (m - 1) for n, m in zip((x, y, z), (8, 9, 7), strict=True)])
    smooth = sitk.GetArrayFromImage(
        sitk.Resample(coarse, (x, y, z), sitk.Transform(), sitk.sitkLinear, (0.0,) * 3, (1.0,) * 3)
    )
    values = smooth * 500 - 350 + rng.normal(size=smooth.shape) * 25
    if case.get("rgb"):
        values = (values - values.min()) / np.ptp(values) * 255
    values = values.round().astype(np.int16)
    values[values == 0] = 1
    bx, by, bz = case.get("zero_border", (0, 0, 0))
    if bx:
        values[:, :, :bx] = values[:, :by] = values[:bz] = 0
        values[:, -by - 2 :] = 0
        values[z // 2 : z // 2 + 3, y // 2 : y // 2 + 4, x // 2 : x // 2 + 5] = 0  # a hole
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(case.get("spacing", (1.1, 0.8, 2.5)))
    image.SetOrigin((-31.0, 17.5, 203.25))
    image.SetDirection((-1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0))
    return image


def train(folder: Path, case: dict[str, Any], name: str) -> None:
    """A training folder of nnU-Net with random weights."""
    channels, labels = case.get("channels", ["CT"]), case.get("labels", LABELS)
    dataset: dict[str, Any] = {
        "channel_names": {str(n): channel for n, channel in enumerate(channels)},
        "labels": labels,
        "numTraining": 1,
        "file_ending": ".nii.gz",
    }
    if "order" in case:
        dataset["regions_class_order"] = case["order"]
    folder.mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps(dataset))
    (folder / "plans.json").write_text(json.dumps(case["plans"]))
    manager = PlansManager(copy.deepcopy(case["plans"]))
    settings = manager.get_configuration(name)
    heads = manager.get_label_manager(dataset).num_segmentation_heads
    inputs = len(channels) + (len(labels) - 1 if settings.previous_stage_name else 0)
    for fold in range(case.get("folds", 1)):
        torch.manual_seed(100 + fold)
        network = get_network_from_plans(
            settings.network_arch_class_name,
            settings.network_arch_init_kwargs,
            settings.network_arch_init_kwargs_req_import,
            inputs,
            heads,
            deep_supervision=False,
        )
        for weights in network.parameters():
            if weights.ndim == 1:
                torch.nn.init.normal_(weights, std=0.2)
        balance(network, inputs, settings.patch_size)
        (folder / f"fold_{fold}").mkdir()
        checkpoint = {
            "network_weights": network.state_dict(),
            "optimizer_state": {},
            "grad_scaler_state": None,
            "logging": {},
            "_best_ema": np.float64(0.5),
            "current_epoch": 1000,
            "init_args": {
                "configuration": name,
                "fold": fold,
                "plans": case["plans"],
                "dataset_json": dataset,
            },
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": case.get("mirror", (0, 1)),
        }
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")


@torch.no_grad()
def balance(network: torch.nn.Module, inputs: int, size: list[int]) -> None:
    """Changes the last bias so that no class has much larger logits than the others on a smooth window."""
    noise = torch.randn(1, inputs, *size)
    logits = network.eval()(torch.nn.functional.interpolate(noise[..., ::4], size=size))
    network.decoder.seg_layers[-1].bias -= logits.mean(dim=(0, *range(2, logits.ndim)))


def predict(model: Path, case: dict[str, Any], scans: list[Path], out: Path, **options: Any) -> None:
    predictor = nnUNetPredictor(
        tile_step_size=0.5,
        use_gaussian=True,
        use_mirroring="mirror" in case,
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    predictor.initialize_from_trained_model_folder(str(model), tuple(range(case.get("folds", 1))))
    predictor.predict_from_files_sequential(
        [[str(path) for path in scans]], [str(out).removesuffix(".nii.gz")], **options
    )


def run(folder: Path, case: dict[str, Any]) -> None:
    """Writes model, scan and mask of a case."""
    channels = case.get("channels", ["CT"])
    names = case.get("names", list(case["plans"]["configurations"]))
    for name in names:
        train(folder / "model" / f"nnUNetTrainer__nnUNetPlans__{name}", case, name)
    scans = [folder / f"scan_{number:04d}.nii.gz" for number in range(len(channels))]
    for number, path in enumerate(scans):
        sitk.WriteImage(scan(case, number), str(path))
    models = [folder / "model" / f"nnUNetTrainer__nnUNetPlans__{name}" for name in names]
    mask, combine = folder / "mask.nii.gz", case.get("combine")
    if combine is None:
        predict(models[0], case, scans, mask)
    elif combine == "mean":
        from nnunetv2.ensembling.ensemble import ensemble_folders

        for number, model in enumerate(models):
            (folder / str(number)).mkdir()
            predict(model, case, scans, folder / str(number) / "mask.nii.gz", save_probabilities=True)
        ensemble_folders([str(folder / str(n)) for n in range(len(models))], str(folder), num_processes=1)
    else:
        (folder / "first").mkdir()
        predict(models[0], case, scans, folder / "first" / "scan.nii.gz")
        predict(models[1], case, scans, mask, folder_with_segs_from_prev_stage=str(folder / "first"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    for wanted in sys.argv[2:] or CASES:
        run(Path(sys.argv[1]) / wanted, CASES[wanted])
