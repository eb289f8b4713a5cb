from __future__ import annotations

import copy
import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from monai.networks.blocks.convolutions import Convolution
from support.processes import PATIENCE
from support.worlds import tiny, untrained
from torch import nn
from torch.onnx import OnnxExporterError

from medseg.errors import ResourceError, UsageError
from medseg.inference.backends import REGISTRY, choose, graph_cache, onnx_export
from medseg.inference.backends.decoder_fusion import shortened
from medseg.inference.backends.network_source import LoadedNetwork
from medseg.inference.backends.pytorch import folded
from medseg.inference.segmenter import Segmenter
from medseg.networks import build
from medseg.phantom.thorax import Thorax, default_grid
from medseg.recipe import Recipe

CPU = "cpu"
COARSE = (8.0, 8.0, 10.0)


def flat(**changes) -> Recipe:
    return tiny(**({"patch": {"size": [32, 24], "neighbours": 1}} | changes))


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def used(recipe: Recipe) -> nn.Module:
    """The network with batch statistics as after training; fresh ones would have no effect."""
    torch.manual_seed(0)
    network = build(recipe).train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.randn(4, recipe.in_channels, *recipe.patch.size) * 3 + 1)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
@pytest.mark.parametrize("make", [tiny, flat])
@pytest.mark.parametrize("name", list(REGISTRY))
def test_every_engine_gives_the_networks_logits(name, make, norm):
    recipe = make(network={"widths": [4, 8, 8], "norm": norm})
    network = used(recipe)
    windows = torch.randn(2, recipe.in_channels, *recipe.patch.size)
    engine = REGISTRY[name](LoadedNetwork(network), tuple(windows.shape), CPU)
    expected = network(windows).numpy()
    np.testing.assert_allclose(engine(windows.numpy()), expected, atol=2e-4, rtol=1e-4)
    # A batch that is not full, as the last one of a scan.
    np.testing.assert_allclose(engine(windows[:1].numpy()), expected[:1], atol=2e-4, rtol=1e-4)
    assert engine.name.startswith({"onnx": "onnxruntime"}.get(name, name))


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
@pytest.mark.parametrize("make", [tiny, flat])
def test_a_shortened_network_is_the_same_function(make, norm):
    """Compared in float64, free of rounding, and with large biases, which the borders cut off."""
    recipe = make(network={"widths": [4, 6, 8], "norm": norm})
    network = used(recipe).double()
    for name, values in network.named_parameters():
        if name.endswith("bias"):
            values.normal_()
    windows = torch.randn(2, recipe.in_channels, *recipe.patch.size, dtype=torch.float64)
    short = shortened(network)
    torch.testing.assert_close(short(windows), network(windows), atol=1e-11, rtol=0)
    kinds = {type(part).__name__ for part in short.modules()}
    assert "UpCat" not in kinds
    assert "UpCat" in {type(part).__name__ for part in network.modules()}


@pytest.mark.parametrize("name", list(REGISTRY))
def test_whole_plane_windows_may_have_any_size(name):
    recipe = flat(network={"widths": [4, 8, 8], "norm": "batch"})
    network = used(recipe)
    engine = REGISTRY[name](
        LoadedNetwork(network), (2, recipe.in_channels, *recipe.patch.size), CPU, free=True
    )
    for size in ((24, 32), (40, 16), (24, 32)):
        windows = torch.randn(2, recipe.in_channels, *size)
        expected = network(windows).numpy()
        np.testing.assert_allclose(engine(windows.numpy()), expected, atol=2e-4, rtol=1e-4)
        np.testing.assert_allclose(engine(windows[:1].numpy()), expected[:1], atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("name", list(REGISTRY))
def test_a_result_is_not_overwritten_by_the_next_call(name):
    recipe = flat()
    network = used(recipe)
    one, two = torch.randn(2, 1, recipe.in_channels, *recipe.patch.size)
    engine = REGISTRY[name](LoadedNetwork(network), tuple(one.shape), CPU)
    first = engine(one.numpy())
    kept = first.copy()
    engine(two.numpy())
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("name", ["openvino", "onnx"])
def test_an_engine_runs_as_before_after_its_memory_was_released(name):
    engine = REGISTRY[name](LoadedNetwork(used(flat())), (2, 3, 32, 24), CPU)
    windows = np.random.default_rng(0).normal(size=(2, 3, 32, 24)).astype(np.float32)
    before = engine(windows)
    engine.release_memory()
    np.testing.assert_allclose(engine(windows), before, rtol=1e-6)


def test_masks_of_all_engines_agree():
    model = untrained(tiny())
    scan = Thorax().scan(default_grid(COARSE))
    masks = {name: np.asarray(Segmenter(model, engine=name)(scan).array) for name in REGISTRY}
    assert masks["torch"].any()
    for name, mask in masks.items():
        assert np.mean(mask != masks["torch"]) <= 1e-5, name


def test_batch_normalisation_is_folded_into_the_convolution():
    network = used(flat(network={"widths": [4, 8, 8], "norm": "batch"}))
    lean = folded(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in lean.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    image = torch.randn(2, 3, 32, 24)
    torch.testing.assert_close(lean(image), network(image), atol=1e-5, rtol=1e-4)


def test_the_graph_is_exported_once(monkeypatch):
    network = used(flat())
    first = onnx_export.graph(network, (1, 3, 32, 24))
    (path,) = graph_cache.folder().iterdir()
    monkeypatch.setattr(onnx_export, "export", lambda *_, **__: 1 / 0)
    assert onnx_export.graph(network, (1, 3, 32, 24)) == first
    with pytest.raises(ZeroDivisionError):
        onnx_export.graph(network, (1, 3, 32, 24), free=True)
    with pytest.raises(ZeroDivisionError):
        onnx_export.graph(network, (2, 3, 32, 24))
    assert hashlib.sha256(path.read_bytes()[32:]).digest() == path.read_bytes()[:32]


def test_a_graph_belongs_to_its_weights_and_layers():
    """Networks of the same shapes that differ in one weight, or in a layer without weights."""
    shape = (1, 3, 32, 24)
    network = used(flat())
    onnx_export.graph(network, shape)
    changed = copy.deepcopy(network)
    next(iter(changed.parameters())).data.view(-1)[0] += 1
    smoother = copy.deepcopy(network)
    for layer in smoother.modules():
        if isinstance(layer, nn.InstanceNorm2d):
            layer.eps = 0.5
    graphs = [onnx_export.graph(each, shape) for each in (network, changed, smoother)]
    assert len(set(graphs)) == 3
    assert len(list(graph_cache.folder().iterdir())) == 3


class Unsupported(nn.Module):
    """A network with an operation that ONNX lacks."""

    def forward(self, windows):
        return windows * torch.linalg.svdvals(windows).sum()


def test_a_failed_export_is_remembered_and_prints_nothing(monkeypatch, capfd):
    with pytest.raises(UsageError, match="cannot be exported to ONNX") as first:
        onnx_export.graph(Unsupported(), (1, 1, 8, 8))
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(onnx_export, "export", lambda *_, **__: 1 / 0)
    with pytest.raises(UsageError) as second:
        onnx_export.graph(Unsupported(), (1, 1, 8, 8))
    assert str(second.value) == str(first.value)


def test_instance_norms_without_scales_are_exported_as_the_same_function():
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.InstanceNorm2d(4)).eval()
    windows = torch.randn(1, 1, 8, 8)
    engine = REGISTRY["onnx"](LoadedNetwork(network), tuple(windows.shape), CPU)
    np.testing.assert_allclose(
        engine(windows.numpy()), network(windows).detach().numpy(), atol=1e-5, rtol=1e-5
    )
    assert network[1].weight is None


@pytest.mark.parametrize("name", list(REGISTRY))
def test_threads_can_share_an_engine(name):
    recipe = tiny()
    network = used(recipe)
    windows = torch.randn(24, 2, recipe.in_channels, *recipe.patch.size).numpy()
    engine = REGISTRY[name](LoadedNetwork(network), tuple(windows[0].shape), CPU)
    expected = [engine(each).copy() for each in windows]
    with ThreadPoolExecutor(4) as threads:
        for _ in range(3):
            for result, wanted in zip(threads.map(engine, windows), expected, strict=True):
                np.testing.assert_allclose(result, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", list(REGISTRY))
def test_threads_can_share_a_segmenter(name):
    segment = Segmenter(untrained(tiny()), engine=name)
    scans = [Thorax.random(seed).scan(default_grid(COARSE), seed=seed) for seed in range(3)]
    expected = [np.asarray(segment(scan).array) for scan in scans]
    with ThreadPoolExecutor(3) as threads:
        for mask, wanted in zip(threads.map(segment, scans * 3), expected * 3, strict=True):
            assert np.array_equal(mask.array, wanted)


@pytest.mark.parametrize("name", REGISTRY)
def test_a_signal_after_an_engine_was_released_in_another_thread_is_handled(name):
    code = f"""
import signal, sys, threading
import torch
from medseg.inference.backends import REGISTRY
from medseg.inference.backends.network_source import LoadedNetwork
network = torch.nn.Conv2d(1, 1, 1).eval()
held = [REGISTRY[{name!r}](LoadedNetwork(network), (1, 1, 8, 8), "cpu")]
thread = threading.Thread(target=held.clear)
thread.start()
thread.join()
signal.signal(signal.SIGINT, lambda *_: print("handled"))
signal.raise_signal(signal.SIGINT)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


def test_networks_are_exported_by_threads_at_the_same_time():
    networks = [
        used(flat(network={"widths": [4, 8, 8], "norm": norm})) for norm in ("batch", "instance", "none")
    ]
    with ThreadPoolExecutor(3) as threads:
        graphs = list(threads.map(lambda network: onnx_export.export(network, (1, 3, 32, 24)), networks))
    assert graphs == [onnx_export.export(network, (1, 3, 32, 24)) for network in networks]


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("wide", "narrow"), [(4, 4), (4, 6), (6, 4)])
@pytest.mark.parametrize("transposed", [False, True])
def test_folding_keeps_the_function_of_convolutions_and_transposed_ones(transposed, wide, narrow, groups):
    torch.manual_seed(0)
    block = Convolution(2, wide, narrow, strides=2, norm="batch", is_transposed=transposed, groups=groups)
    norm = block.adn.N
    for values in (norm.weight, norm.bias, norm.running_mean):
        values.data.normal_()
    norm.running_var.uniform_(0.5, 2)
    network = nn.Sequential(block).eval().requires_grad_(False)
    image = torch.randn(2, wide, 8, 6)
    torch.testing.assert_close(folded(network)(image), network(image), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("damage", [b"", b"short", None])
def test_a_damaged_graph_is_exported_again(damage):
    network = used(flat())
    first = onnx_export.graph(network, (1, 3, 32, 24))
    (path,) = graph_cache.folder().iterdir()
    held = path.read_bytes()
    path.write_bytes(held[:-1] + bytes([held[-1] ^ 1]) if damage is None else damage)
    assert len(onnx_export.graph(network, (1, 3, 32, 24))) == len(first)
    assert hashlib.sha256(path.read_bytes()[32:]).digest() == path.read_bytes()[:32]


def test_an_unwritable_cache_is_skipped(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert onnx_export.graph(used(flat()), (1, 3, 32, 24))


def test_auto_is_onnx_runtime_where_only_that_is_installed(monkeypatch):
    installed = {"onnxruntime"}
    monkeypatch.setattr("medseg.inference.backends.find_spec", lambda name: name in installed or None)
    assert choose("auto", CPU) == "onnx"
    installed.add("torch")
    assert choose("auto", CPU) == "torch"
    assert choose("auto", CPU, packaged=True) == "onnx"
    installed.remove("torch")
    with pytest.raises(ResourceError, match="torch is not installed"):
        choose("torch", CPU)


def test_auto_prefers_openvino_on_the_cpu_if_installed(monkeypatch):
    assert choose("auto", CPU) == "openvino"
    assert choose("auto", "cuda") == "torch"
    monkeypatch.setattr("medseg.inference.backends.find_spec", lambda package: None)
    assert choose("auto", CPU) == "torch"
    with pytest.raises(ResourceError, match=r"pip install 'medseg\[onnx\]'"):
        choose("onnx", CPU)


@pytest.mark.parametrize("error", [OnnxExporterError, RuntimeError])
def test_auto_falls_back_to_torch_if_a_network_cannot_be_exported(monkeypatch, error):
    def impossible(network, shape, *, free):
        raise error("no such operation in ONNX")

    monkeypatch.setattr(onnx_export, "export", impossible)
    assert Segmenter(untrained(tiny())).engine.startswith("torch")
    for engine in ("openvino", "onnx"):
        with pytest.raises(UsageError, match="no such operation") as caught:
            Segmenter(untrained(tiny()), engine=engine)
        assert caught.value.reason == "engine"


@pytest.mark.parametrize(
    ("name", "device", "problem"),
    [("tensorrt", "cpu", "no engine is called 'tensorrt'"), ("onnx", "cuda", "CPU only")],
)
def test_unusable_engines_are_refused(name, device, problem):
    with pytest.raises(UsageError, match=problem) as caught:
        choose(name, device)
    assert caught.value.reason == "engine"


def test_openvino_is_imported_without_telemetry():
    code = """
import sys, torch
from torch import nn
from medseg.inference.backends.network_source import LoadedNetwork
from medseg.inference.backends.openvino import OpenVino
OpenVino(LoadedNetwork(nn.Conv2d(1, 1, 1)), (1, 1, 4, 4), "cpu")
loaded = [name for name in sys.modules if name.startswith("openvino_telemetry") and sys.modules[name]]
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE)
