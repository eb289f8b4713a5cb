"""Tiny models as other tools keep them, made without those tools: files of nnU-Net v2 and lungmask."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medseg.networks import lungmask_unet, plain_conv_unet, residual_encoder_unet
from medseg.recipe.architecture import LungmaskUNet, PlainConvUNet, ResidualEncoderUNet

DATASET = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "lung": 1, "lesion": 2},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}
_CT = {"mean": -300.5, "std": 350.25, "percentile_00_5": -1000.0, "percentile_99_5": 250.0, "median": -500.0}
_RESAMPLING = {
    name: value
    for which, order in (("data", 3), ("probabilities", 1))
    for name, value in (
        (f"resampling_fn_{which}", "resample_data_or_seg_to_shape"),
        (
            f"resampling_fn_{which}_kwargs",
            {"is_seg": False, "order": order, "order_z": 0, "force_separate_z": None},
        ),
    )
}


def architecture(dims: int = 3, *, residual: bool = False, **changes: Any) -> dict[str, Any]:
    """``architecture`` of a configuration with three stages, whose axes differ."""
    one = [1] * dims
    kwargs = {
        "n_stages": 3,
        "features_per_stage": [4, 8, 8],
        "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
        "kernel_sizes": [[1, *[3] * (dims - 1)], [3] * dims, [3] * dims],
        "strides": [one, [1, *[2] * (dims - 1)], [2] * dims],
        "n_blocks_per_stage" if residual else "n_conv_per_stage": [1, 2, 1] if residual else [2, 2, 2],
        "n_conv_per_stage_decoder": [1, 1] if residual else [2, 2],
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
        **changes,
    }
    kind = "ResidualEncoderUNet" if residual else "PlainConvUNet"
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{kind}",
        "arch_kwargs": kwargs,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def configuration(dims: int = 3, *, residual: bool = False, **changes: Any) -> dict[str, Any]:
    """A configuration as nnU-Net 2.2 and later write it."""
    return {
        "data_identifier": f"nnUNetPlans_{dims}d",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [8, 16, 16][-dims:],
        "median_image_size_in_voxels": [20.0, 40.0, 40.0][-dims:],
        "spacing": [4.0, 2.0, 1.5][-dims:],
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        **_RESAMPLING,
        "architecture": architecture(dims, residual=residual),
        **changes,
    }


def old_configuration(**changes: Any) -> dict[str, Any]:
    """The same as nnU-Net before 2.2 wrote it."""
    new = configuration()
    given = new.pop("architecture")["arch_kwargs"]
    return new | {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 4,
        "unet_max_num_features": 8,
        "n_conv_per_stage_encoder": given["n_conv_per_stage"],
        "n_conv_per_stage_decoder": given["n_conv_per_stage_decoder"],
        "num_pool_per_axis": [1, 2, 2],
        "pool_op_kernel_sizes": given["strides"],
        "conv_kernel_sizes": given["kernel_sizes"],
        **changes,
    }


def plans(configurations: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """``plans.json`` of these configurations."""
    return {
        "dataset_name": "Dataset999_Tiny",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [4.0, 2.0, 1.5],
        "original_median_shape_after_transp": [20, 40, 40],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": dict(configurations),
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": _CT, "1": _CT},
        **changes,
    }


def checkpoint(
    weights: Mapping[str, torch.Tensor], name: str = "3d_fullres", **changes: Any
) -> dict[str, Any]:
    """The content of ``checkpoint_final.pth``: weights stored twice, momentum, numpy scalars in the log."""
    doubled = dict(weights)
    for key, tensor in weights.items():
        for layer, number in ((".conv.", 0), (".norm.", 1)):
            if layer in key:
                doubled[key.replace(layer, f".all_modules.{number}.")] = tensor
    doubled |= {f"decoder.{k}": t for k, t in doubled.items() if k.startswith("encoder.")}
    return {
        "network_weights": doubled,
        "optimizer_state": {
            "state": {n: {"momentum_buffer": t.clone()} for n, t in enumerate(weights.values())},
            "param_groups": [{"lr": 0.01, "momentum": 0.99, "nesterov": True, "params": [0, 1]}],
        },
        "grad_scaler_state": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 5},
        "logging": {
            "mean_fg_dice": [np.float64(0.5), np.float32(0.75)],
            "dice_per_class_or_region": [[np.float64(0.5), np.float16(0.25)]],
            "epoch_start_timestamps": [1.5],
        },
        "_best_ema": np.float64(0.625),
        "current_epoch": 1000,
        "init_args": {
            "plans": {"dataset_name": "Dataset999_Tiny"},
            "configuration": name,
            "fold": 0,
            "dataset_json": DATASET,
            "unpack_dataset": True,
            "device": torch.device("cuda", 0),
        },
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1, 2),
        **changes,
    }


def network_of(found: Mapping[str, Any], channels: int, outputs: int) -> torch.nn.Module:
    """The network of a configuration, built from medseg's own; tests with nnU-Net use nnU-Net's."""
    given = found["architecture"]["arch_kwargs"]
    rules = {
        "widths": given["features_per_stage"],
        "kernels": given["kernel_sizes"],
        "strides": given["strides"],
        "decoder_convolutions": given["n_conv_per_stage_decoder"],
        "deep_supervision": [1.0] * (given["n_stages"] - 1),
    }
    dims = len(found["patch_size"])
    if "n_blocks_per_stage" in given:
        section = ResidualEncoderUNet(
            kind="residual_encoder_unet", blocks=given["n_blocks_per_stage"], **rules
        )
        return residual_encoder_unet.build(section, dims, channels, outputs)
    plain = PlainConvUNet(kind="plain_conv_unet", convolutions=given["n_conv_per_stage"], **rules)
    return plain_conv_unet.build(plain, dims, channels, outputs)


def training_folder(
    place: Path,
    *,
    found: Mapping[str, Any] | None = None,
    name: str = "3d_fullres",
    folds: int = 1,
    dataset: Mapping[str, Any] | None = None,
    outputs: int = 3,
    trainer: str = "nnUNetTrainer",
    **changes: Any,
) -> Path:
    """A training folder with random weights.

    Args:
        place: The folder in which it is made.
        found: The configuration; None: :func:`configuration`.
        name: Name of the configuration.
        folds: Number of folds.
        dataset: ``dataset.json``; None: one channel, lung and lesion.
        outputs: Number of channels of the logits.
        trainer: Its name.
        **changes: Changes of ``plans.json``.
    """
    found, dataset = dict(found or configuration()), dict(dataset or DATASET)
    folder = place / f"{trainer}__nnUNetPlans__{name}"
    folder.mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps(dataset))
    (folder / "plans.json").write_text(json.dumps(plans({name: found}, **changes)))
    shape = found if "architecture" in found else configuration()
    for fold in range(folds):
        torch.manual_seed(fold)
        network = network_of(shape, len(dataset["channel_names"]), outputs)
        (folder / f"fold_{fold}").mkdir()
        axes = tuple(range(len(found["patch_size"])))
        content = checkpoint(
            network.state_dict(), name, trainer_name=trainer, inference_allowed_mirroring_axes=axes
        )
        torch.save(content, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder


def zipped(folder: Path, target: Path, method: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip archive of a folder."""
    with zipfile.ZipFile(target, "w", method) as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, path.relative_to(folder.parent))
    return target


def lungmask_weights(path: Path, classes: int = 3, *, old: bool = False) -> Path:
    """A weights file of lungmask with its unused layers, in the format of PyTorch before 1.6 if ``old``."""
    torch.manual_seed(classes)
    network = lungmask_unet.build(LungmaskUNet(kind="lungmask_unet", widths=(2, 4, 4, 6, 6)), 2, 1, classes)
    table = dict(network.state_dict())
    for level in range(5):
        table[f"down_path.{level}.residual_input_conv.weight"] = torch.zeros(2, 2, 1, 1)
    torch.save(table, path, _use_new_zipfile_serialization=not old)
    return path
