"""Instance normalisation for OpenVINO that is as exact as torch's, in the same time."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import openvino

_SIDE = 8
"""Sides of the blocks that are averaged first: 4 and 16 took as long and were as exact."""


def replace_norms(model: openvino.Model) -> int:
    """Replaces a graph's normalisations by mean and centred variance from averages of blocks, in place.

    OpenVINO's own (``MVN``) adds up a channel in one float32 number, voxel after voxel: with a million
    of them, values are off by up to 5e-3, and differ with the number of threads; its ``ReduceMean`` does
    the same. Averages of blocks of 8 x 8 x 8 voxels, and then of these averages, are sums of at most a few
    thousand terms. Measured in ``docs/performance.md``, "Models of nnU-Net".

    Args:
        model: A graph whose shapes are known; others, and normalisations over other axes than those of a
            window, are left as they are.

    Returns:
        How many were replaced.
    """
    replaced = 0
    for node in model.get_ordered_ops():
        if node.get_type_name() != "MVN":
            continue
        shape = node.get_output_partial_shape(0)
        rank = shape.rank.get_length()
        axes = node.input_value(1).get_node()
        if shape.is_dynamic or rank not in (4, 5) or axes.get_type_name() != "Constant":
            continue
        if sorted(int(a) % rank for a in axes.get_data().ravel()) != list(range(2, rank)):
            continue
        rules = node.get_attributes()
        if not rules["normalize_variance"] or rules["eps_mode"].lower() != "inside_sqrt":
            continue
        normalised = _normalised(node.input_value(0), tuple(shape.to_shape())[2:], float(rules["eps"]))
        for target in list(node.output(0).get_target_inputs()):
            target.replace_source_output(normalised)
        replaced += 1
    return replaced


def _normalised(values: openvino.Output, sides: tuple[int, ...], eps: float) -> openvino.Output:
    from openvino import opset13 as ops

    centred = ops.subtract(values, _mean(values, sides)).output(0)
    variance = _mean(ops.multiply(centred, centred).output(0), sides)
    deviation = ops.sqrt(ops.add(variance, ops.constant(np.float32(eps))))
    return ops.multiply(centred, ops.divide(ops.constant(np.float32(1)), deviation)).output(0)


def _mean(values: openvino.Output, sides: tuple[int, ...]) -> openvino.Output:
    """Mean of each channel, with sides of 1."""
    from openvino import opset13 as ops

    block = [min(_SIDE, side) for side in sides]
    rest = [-side % size for side, size in zip(sides, block, strict=True)]
    # Blocks at the end are filled with zeros, which the factor takes out again.
    blocks = ops.avg_pool(values, block, [0] * len(sides), rest, block, exclude_pad=False)
    mean = ops.reduce_mean(blocks, ops.constant(np.arange(2, len(sides) + 2)), keep_dims=True)
    padded = prod(side + more for side, more in zip(sides, rest, strict=True))
    return ops.multiply(mean, ops.constant(np.float32(padded / prod(sides)))).output(0)
