"""Probabilities and entropy of imported models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.foreign_models import (
    DATASET,
    checkpoint,
    configuration,
    lungmask_weights,
    network_of,
    training_folder,
)

import medseg
from medseg.errors import UsageError
from medseg.images.grid import Grid
from medseg.images.volume import Volume
from medseg.inference.prediction import Prediction
from medseg.inference.uncertainty import Entropy

pytestmark = pytest.mark.filterwarnings("ignore::medseg.InputWarning")


def noise(shape: tuple[int, int, int] = (20, 24, 14), slice_mm: float = 5.0) -> Volume:
    """Noise in HU, none of it 0, so that nothing is cropped."""
    values = np.random.default_rng(5).integers(-1000, -1, shape)
    return Volume(values.astype(np.int16), Grid.from_spacing(shape, (1.5, 2.0, slice_mm)))


def trained(place, **options):
    """A training folder whose network finds all labels, and the network."""
    found = options.setdefault("found", configuration())
    seed = options.pop("seed", 0)
    folder = training_folder(place, **options)
    torch.manual_seed(seed)
    outputs, previous = options.get("outputs", 3), 2 if "previous_stage" in found else 0
    network = network_of(found, 1 + previous, outputs)
    for weights in network.parameters():
        if weights.ndim == 1:
            torch.nn.init.normal_(weights, std=0.3)
    content = checkpoint(network.state_dict(), options.get("name", "3d_fullres"))
    content["inference_allowed_mirroring_axes"] = tuple(range(len(found["patch_size"])))
    torch.save(content, folder / "fold_0" / "checkpoint_final.pth")
    return folder, network.eval()


def predicted(source, scan: Volume, **options) -> Prediction:
    model = medseg.import_model(source, mirror=False, **options)
    return medseg.Segmenter(model, engine="torch").prepare(scan).predict(probabilities=True)


def entropy_of(prediction: Prediction) -> dict[str, float]:
    """The entropy of probabilities on the scan's grid."""
    entropy = Entropy(list(prediction.probabilities))
    entropy.add(np.stack(list(prediction.probabilities.values())))
    return entropy.bits()


def check_decided(prediction: Prediction) -> None:
    """The mask is the likeliest class, except where two classes are equal within rounding."""
    labels = np.stack(list(prediction.probabilities.values()))
    assert labels.min() >= 0
    assert labels.sum(0).max() <= 1 + 1e-6
    classes = np.concatenate([1 - labels.sum(0, keepdims=True), labels])
    chosen = np.take_along_axis(classes, prediction.mask.array[None].astype(int), axis=0)[0]
    assert np.all(classes.max(0) - chosen <= 1e-6)
    assert len(np.unique(prediction.mask.array)) >= 2


def test_probabilities_of_one_window_are_the_softmax_of_its_logits(tmp_path):
    # The scan is as large as a window and has its spacing: nothing is resampled or averaged.
    folder, network = trained(tmp_path)
    scan = noise((16, 16, 8), 4.0)
    made = predicted(folder, scan)
    hu = np.clip(scan.array.transpose(2, 1, 0).astype(np.float32), -1000, 250)
    image = torch.from_numpy((hu + 300.5) / 350.25)[None, None]
    with torch.no_grad():
        expected = torch.softmax(network(image)[0], 0).numpy().transpose(0, 3, 2, 1)
    assert list(made.probabilities) == ["lung", "lesion"]
    for number, values in enumerate(made.probabilities.values(), 1):
        assert (values.dtype, values.shape) == (np.float32, scan.grid.shape)
        # nnU-Net keeps sums of weighted logits in 16 bits; at the border of a window weights are tiny.
        middle = np.s_[4:12, 4:12, 2:6]
        assert np.abs(values - expected[number])[middle].max() < 2e-3
    assert made.entropy == pytest.approx(entropy_of(made), abs=1e-5)
    assert 0 < made.entropy["lung"] <= 1


def test_probabilities_decide_the_mask_of_a_resampled_scan(tmp_path):
    made = predicted(trained(tmp_path)[0], noise())
    check_decided(made)
    assert set(made.entropy) <= {"lung", "lesion"}
    assert made.entropy


def test_probabilities_are_those_of_regions(tmp_path):
    dataset = {**DATASET, "labels": {"background": 0, "whole": [1, 2], "core": 2}}
    dataset["regions_class_order"] = [1, 2]
    folder, _ = trained(tmp_path, dataset=dataset, outputs=2)
    made = predicted(folder, noise((16, 16, 8), 4.0))
    core = made.probabilities["core"] > 0.5
    assert np.array_equal(made.mask.array == 2, core)
    assert 0 < core.mean() < 1
    assert made.entropy == pytest.approx(entropy_of(made), abs=1e-5)


def test_probabilities_of_several_configurations_are_averaged(tmp_path):
    folder = tmp_path / "Dataset999_Tiny"
    trained(folder)
    trained(folder, found=configuration(2), name="2d", seed=1)
    both = predicted(folder, noise(), configuration="3d_fullres,2d")
    alone = [predicted(folder, noise(), configuration=name) for name in ("3d_fullres", "2d")]
    for label, values in both.probabilities.items():
        mean = (alone[0].probabilities[label] + alone[1].probabilities[label]) / 2
        assert np.abs(values - mean).max() < 1e-6
    check_decided(both)
    assert both.entropy == pytest.approx(entropy_of(both), abs=1e-5)


def test_probabilities_of_a_cascade_are_those_of_its_last_network(tmp_path):
    folder = tmp_path / "Dataset999_Tiny"
    trained(folder, name="3d_lowres")
    last = configuration(previous_stage="3d_lowres")
    trained(folder, found=last, name="3d_cascade_fullres", seed=1)
    made = predicted(folder, noise(), configuration="3d_cascade_fullres")
    check_decided(made)
    first = predicted(folder, noise(), configuration="3d_lowres")
    assert np.any(first.probabilities["lung"] != made.probabilities["lung"])
    # On its own grid, the entropy is that of the same voxels.
    exact = predicted(folder, noise((16, 16, 8), 4.0), configuration="3d_cascade_fullres")
    assert exact.entropy == pytest.approx(entropy_of(exact), abs=1e-5)


def test_a_label_of_two_parts_has_the_larger_probability(tmp_path):
    parts = {"Dataset291_a": ("spleen", "liver"), "Dataset292_b": ("heart", "liver")}
    for seed, (part, names) in enumerate(parts.items()):
        labels = {"background": 0} | {name: value for value, name in enumerate(names, 1)}
        trained(tmp_path / "task" / part, dataset={**DATASET, "labels": labels}, seed=seed)
    together = predicted(tmp_path / "task", noise())
    alone = [predicted(tmp_path / "task" / part, noise()) for part in parts]
    larger = np.maximum(*(each.probabilities["liver"] for each in alone))
    assert list(together.probabilities) == ["spleen", "liver", "heart"]
    assert np.array_equal(together.probabilities["liver"], larger)
    assert np.array_equal(together.probabilities["heart"], alone[1].probabilities["heart"])


def test_air_around_a_scan_has_no_label(tmp_path):
    values = np.zeros((20, 24, 14), np.int16)
    values[4:16, 3:21, 2:12] = noise((12, 18, 10)).array
    scan = Volume(values, noise().grid)
    made = predicted(trained(tmp_path)[0], scan)
    for map_ in made.probabilities.values():
        assert not map_[values == 0].any()
        assert map_[values != 0].all()


def test_probabilities_of_lungmask_are_those_of_its_slices(tmp_path):
    lobes, lungs = (lungmask_weights(tmp_path / f"{n}.pth", n) for n in (6, 3))
    scan = noise((30, 28, 6))
    model = medseg.import_model(lungs)
    made = medseg.Segmenter(model, engine="torch").prepare(scan).predict(probabilities=True)
    assert list(made.probabilities) == ["right_lung", "left_lung"]
    total = np.sum(list(made.probabilities.values()), axis=0)
    assert 0 < total.max() <= 1 + 1e-6
    fused = medseg.import_model(lobes, fill=lungs)
    alone, both = (
        medseg.Segmenter(each, engine="torch").prepare(scan).predict(probabilities=True)
        for each in (medseg.import_model(lobes), fused)
    )
    assert alone.entropy == both.entropy
    for label, values in both.probabilities.items():
        assert np.array_equal(values, alone.probabilities[label])


def test_labels_that_lungmask_does_not_have_are_refused(tmp_path):
    segment = medseg.Segmenter(medseg.import_model(lungmask_weights(tmp_path / "3.pth", 3)), engine="torch")
    for unknown in ("spleen", ["right_lung", "spleen"], "right"):
        with pytest.raises(UsageError) as caught:
            segment.prepare(noise((30, 28, 6)), roi=unknown)
        assert caught.value.reason == "no-such-label"
    one = segment.prepare(noise((30, 28, 6)), roi="right_lung").predict(probabilities=True)
    assert list(one.probabilities) == ["right_lung"]


def test_the_mask_does_not_depend_on_whether_probabilities_are_wanted(tmp_path):
    folder, _ = trained(tmp_path)
    made = predicted(folder, noise())
    model = medseg.import_model(folder, mirror=False)
    plain = medseg.Segmenter(model, engine="torch").prepare(noise()).predict()
    assert np.array_equal(plain.mask.array, made.mask.array)
    assert (plain.entropy, dict(plain.probabilities)) == (made.entropy, {})
