"""The networks of recipes as components of a MONAI bundle, and their weights under MONAI's names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medseg.errors import ModelRefused
from medseg.recipe import Recipe

if TYPE_CHECKING:
    import torch
    from torch import nn

_NORMS: dict[str, object] = {"batch": "BATCH", "instance": ["INSTANCE", {"affine": True}]}
_TWICE = "skip_layers."
"""Where MONAI's ``DynUNet`` has the same blocks a second time."""


def network_component(recipe: Recipe) -> dict[str, Any] | None:
    """The component of a recipe's network in ``inference.json``; None if it is no class of MONAI."""
    size = {
        "spatial_dims": recipe.spatial_dims,
        "in_channels": recipe.in_channels,
        "out_channels": recipe.out_channels,
    }
    own: dict[str, Any] = recipe.network.model_dump(mode="json")
    kind = own["kind"]
    if kind == "residual_unet" and own["norm"] in _NORMS:
        steps = {"strides": [2] * (len(own["widths"]) - 1), "num_res_units": own["units"]}
        norm = {"norm": _NORMS[own["norm"]], "dropout": own["dropout"]}
        return {"_target_": "UNet", **size, "channels": own["widths"], **steps, **norm}
    if kind == "attention_unet":
        steps = {"strides": [2] * (len(own["widths"]) - 1), "dropout": own["dropout"]}
        return {"_target_": "AttentionUnet", **size, "channels": own["widths"], **steps}
    if kind == "segresnet":
        blocks = {"blocks_down": own["blocks"], "blocks_up": [1] * (len(own["blocks"]) - 1)}
        rest = {"init_filters": own["filters"], "dropout_prob": own["dropout"] or None}
        return {"_target_": "SegResNet", **size, **rest, **blocks}
    if kind == "dynunet":
        strides = [1, *[2] * (len(own["widths"]) - 1)]
        heads = len(own["deep_supervision"]) - 1
        more = {"deep_supervision": heads > 0, "deep_supr_num": max(heads, 1), "res_block": own["residual"]}
        kernels = {"kernel_size": [3] * len(strides), "strides": strides, "upsample_kernel_size": strides[1:]}
        return {"_target_": "DynUNet", **size, **kernels, "filters": own["widths"], **more}
    if kind == "swin_unetr":
        rest = {"depths": own["depths"], "feature_size": own["features"], "drop_rate": own["dropout"]}
        return {"_target_": "SwinUNETR", **size, **rest}
    return None


def weights_of(component: dict[str, Any], network: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict of a component's network with the weights of a network of medseg.

    Raises:
        ModelRefused: the component's network has other weights (``weights``).
    """
    from monai.bundle import ConfigParser

    theirs: nn.Module = ConfigParser({"network": component}).get_parsed_content("network")
    found = theirs.load_state_dict(network.state_dict(), strict=False)
    missing = [name for name in found.missing_keys if not name.startswith(_TWICE)]
    if missing or found.unexpected_keys:
        raise ModelRefused(
            f"MONAI's {component['_target_']} has other weights: {[*missing, *found.unexpected_keys][0]}",
            where="monai",
            remedy="install the version of MONAI that medseg names",
            reason="weights",
        )
    return theirs.state_dict()
