import numpy as np
import pytest
import torch
from torch import nn

from medseg.inference.backends import onnx_export
from medseg.inference.backends.network_source import LoadedNetwork
from medseg.inference.backends.openvino import OpenVino


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def layers(dims: int) -> nn.Sequential:
    """A convolution, as OpenVINO chooses the layout for it, and a normalisation with its own scales."""
    torch.manual_seed(0)
    conv = {2: nn.Conv2d, 3: nn.Conv3d}[dims](1, 4, 3, padding=1)
    norm = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[dims](4, affine=True)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.uniform_(norm.bias, -1, 1)
    return nn.Sequential(conv, norm).eval().requires_grad_(False)


# Whole blocks of 8, sides that are no multiples of 8 or shorter, and planes.
@pytest.mark.parametrize("sides", [(64, 96, 96), (53, 7, 90), (3, 5, 2), (1, 30, 30), (300, 301)])
def test_a_normalisation_is_as_exact_as_single_precision_allows(sides):
    network = layers(len(sides))
    window = np.random.default_rng(0).normal(3, 1, (1, 1, *sides)).astype(np.float32)
    found = OpenVino(LoadedNetwork(network), window.shape, "cpu")(window)
    with torch.inference_mode():
        exact = network.double()(torch.from_numpy(window).double()).numpy()
    # Logits up to about 8; 24 bits. OpenVINO's own normalisation is off by 1e-3 in the first case.
    assert np.abs(found - exact).max() < 2e-5


def test_normalisations_of_windows_of_any_size_are_left_alone():
    network = layers(2)
    engine = OpenVino(LoadedNetwork(network), (1, 1, 32, 32), "cpu", free=True)
    window = np.random.default_rng(0).normal(size=(1, 1, 40, 24)).astype(np.float32)
    np.testing.assert_allclose(engine(window), network(torch.from_numpy(window)).numpy(), atol=1e-4)


def test_other_normalisations_are_left_alone():
    openvino = pytest.importorskip("openvino")
    from medseg.inference.backends.instance_norms import replace_norms

    model = openvino.Core().read_model(onnx_export.export(layers(3), (1, 1, 8, 8, 8)), b"")
    assert replace_norms(model) == 1
    ops = openvino.opset13
    values = ops.parameter([1, 4, 8, 8], np.float32)
    across = ops.mvn(values, ops.constant(np.array([1, 2, 3])), True, 1e-5, "INSIDE_SQRT")
    outside = ops.mvn(values, ops.constant(np.array([2, 3])), True, 1e-5, "OUTSIDE_SQRT")
    assert replace_norms(openvino.Model([across, outside], [values])) == 0
