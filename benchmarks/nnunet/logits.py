"""Logits by the networks of nnU-Net v2 and lungmask themselves: the truth for imported networks.

Run it with a Python that has ``nnunetv2`` and ``lungmask`` (not medseg's own): ``python logits.py FOLDER``.
Each case becomes a folder with a training folder of nnU-Net, or ``unet.pth`` of lungmask, and with
``logits.npz``: an image and the logits of fold 0.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lungmask.resunet import UNet
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from oracle import ANISO, CASES, configuration, plain, plans, residual, train

WIDE = {"kernel_sizes": [[1, 3, 5], [3, 3, 3], [3, 5, 3]], "strides": [[1, 1, 1], [1, 2, 2], [2, 1, 2]]}


def case_of(name: str, **changes: Any) -> dict[str, Any]:
    return {"plans": plans({name: configuration(**changes)})}


NETWORKS: dict[str, dict[str, Any]] = {
    **{
        name: CASES[name]
        for name in ("3d", "resenc", "2d", "mr", "regions", "anisotropic", "before_22", "inherited")
    },
    "kernels": case_of("3d_fullres", architecture=plain(3, **WIDE)),
    "counts": case_of(
        "3d_fullres", architecture=plain(3, n_conv_per_stage=[1, 3, 2], n_conv_per_stage_decoder=[3, 1])
    ),
    "without_bias": case_of("3d_fullres", architecture=plain(3, conv_bias=False)),
    "resenc_2d": case_of("2d", patch_size=[32, 24], spacing=[1.5, 1.5], architecture=residual(2)),
    "resenc_anisotropic": case_of("3d_fullres", architecture=residual(3, **ANISO)),
}


def nnunet(folder: Path, case: dict[str, Any]) -> None:
    """Writes a training folder and logits."""
    name = next(iter(case["plans"]["configurations"]))
    model = folder / f"nnUNetTrainer__nnUNetPlans__{name}"
    train(model, case, name)
    dataset = json.loads((model / "dataset.json").read_text())
    manager = PlansManager(copy.deepcopy(case["plans"]))
    settings = manager.get_configuration(name)
    network = get_network_from_plans(
        settings.network_arch_class_name,
        settings.network_arch_init_kwargs,
        settings.network_arch_init_kwargs_req_import,
        len(dataset["channel_names"]),
        manager.get_label_manager(dataset).num_segmentation_heads,
        deep_supervision=False,
    )
    weights = torch.load(model / "fold_0" / "checkpoint_final.pth", weights_only=False)["network_weights"]
    network.load_state_dict(weights)
    write(folder, network, (1, len(dataset["channel_names"]), *settings.patch_size))


def lungmask(folder: Path, classes: int, *, old: bool) -> None:
    """Writes a weights file and logits; lungmask's network ends in a softmax, which is left out."""
    network = UNet(
        n_classes=classes, padding=True, depth=5, wf=2, up_mode="upsample", batch_norm=True, residual=False
    )
    for name, values in network.named_buffers():
        if name.endswith("running_mean"):
            values.normal_(std=0.2)
        if name.endswith("running_var"):
            values.uniform_(0.5, 2.0)
    folder.mkdir(parents=True)
    torch.save(network.state_dict(), folder / "unet.pth", _use_new_zipfile_serialization=not old)
    network.softmax = torch.nn.Identity()
    write(folder, network, (1, 1, 64, 96))


@torch.no_grad()
def write(folder: Path, network: torch.nn.Module, shape: tuple[int, ...]) -> None:
    image = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    np.savez(folder / "logits.npz", image=image.numpy(), logits=network.eval()(image).numpy())


if __name__ == "__main__":
    torch.set_num_threads(1)
    place = Path(sys.argv[1])
    for each, rules in NETWORKS.items():
        nnunet(place / each, rules)
    torch.manual_seed(9)
    lungmask(place / "r231", 3, old=True)
    lungmask(place / "ltrclobes", 6, old=False)
