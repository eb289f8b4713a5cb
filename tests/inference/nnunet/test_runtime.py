"""Imported models on a device, here the CPU under another name: the masks of the way through main memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.foreign_models import DATASET, checkpoint, configuration, network_of, training_folder

import medseg
from medseg.images.grid import Grid
from medseg.images.volume import Volume
from medseg.inference.nnunet.runtime import NnunetRuntime

pytestmark = pytest.mark.filterwarnings("ignore::medseg.InputWarning")

REGIONS = {**DATASET, "labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1, 2]}


def scan() -> Volume:
    """Blocks of noise in HU."""
    coarse = np.random.default_rng(5).integers(-1000, 200, (7, 8, 5))
    values = coarse.repeat(4, 0).repeat(4, 1).repeat(4, 2).astype(np.int16)
    return Volume(values, Grid.from_spacing(values.shape, (1.5, 2.0, 3.0)))


def trained(place, dataset, outputs):
    """A folder of two folds of a network with random weights that finds all labels."""
    folder = training_folder(place, folds=2, dataset=dataset, outputs=outputs)
    for fold in range(2):
        torch.manual_seed(fold)
        network = network_of(configuration(), 1, outputs)
        for weights in network.parameters():
            if weights.ndim == 1:
                torch.nn.init.normal_(weights, std=0.3)
        content = checkpoint(network.state_dict(), "3d_fullres")
        content["inference_allowed_mirroring_axes"] = (0, 2)
        torch.save(content, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder


@pytest.mark.parametrize(("dataset", "outputs"), [(DATASET, 3), (REGIONS, 2)], ids=["classes", "regions"])
def test_masks_are_those_of_the_way_through_main_memory(tmp_path, dataset, outputs):
    model = medseg.import_model(trained(tmp_path, dataset, outputs), mirror=True)
    segment = medseg.Segmenter(model, engine="torch", device="cpu")
    expected = segment.prepare(scan()).predict(probabilities=True)
    runtime = segment._runtime
    assert isinstance(runtime, NnunetRuntime)
    segment._runtime = NnunetRuntime(runtime.recipe, [stage.networks for stage in runtime.stages], "cpu:0")
    seen = []
    for stage in segment._runtime.stages:
        for engine in stage.networks:
            engine.batch = 3
            run = engine._run
            engine._run = lambda windows, run=run: (seen.append(windows), run(windows))[1]
    ours = segment.prepare(scan()).predict(probabilities=True)
    assert max(len(windows) for windows in seen) == 3
    # Rounding of a batch differs from that of one window, by less than a step of 16 bits in most voxels.
    assert np.mean(ours.mask.array != expected.mask.array) < 2e-3
    assert len(np.unique(ours.mask.array)) >= 2
    assert ours.entropy == pytest.approx(expected.entropy, abs=1e-3)
    for name, values in expected.probabilities.items():
        np.testing.assert_allclose(ours.probabilities[name], values, atol=5e-3)
