"""Fields of a tiny recipe with a section ``context``."""

CONTEXT = {
    "context": {"size": [16, 16, 16], "network": {"kind": "unet", "widths": [4, 8]}},
    "labels": [
        {"name": "right_lung", "values": [1], "side": "right"},
        {"name": "left_lung", "values": [2], "side": "left"},
    ],
    "loss": {"kind": "dice_ce"},
}
