"""Which device a name means; GPUs are substituted, for there may be none."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.processes import heavy_imports

from medseg.errors import UsageError
from medseg.system import devices
from medseg.system.devices import checked, described, resolved


def torch_with(monkeypatch, count: int) -> None:
    cuda = SimpleNamespace(
        is_available=lambda: count > 0,
        device_count=lambda: count,
        get_device_name=lambda number: f"Card {number}",
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:1", "mps"])
def test_a_name_of_torch_means_itself(name):
    assert resolved(name) == name


@pytest.mark.parametrize("name", ["auto", "gpu"])
def test_a_gpu_is_taken_if_there_is_one(name, monkeypatch):
    torch_with(monkeypatch, 2)
    assert resolved(name) == "cuda"
    assert described("cuda:1") == "cuda:1 (Card 1)"
    assert described("cpu") == "cpu"


def test_auto_is_the_cpu_without_a_gpu_and_for_engines_of_the_cpu(monkeypatch):
    torch_with(monkeypatch, 0)
    assert resolved("auto") == "cpu"
    torch_with(monkeypatch, 1)
    assert resolved("auto", cpu_only=True) == "cpu"


@pytest.mark.parametrize("name", ["gpu", "tpu", "", "cuda:", "cpu,cuda"])
def test_devices_that_do_not_exist_are_refused(name, monkeypatch):
    torch_with(monkeypatch, 0)
    monkeypatch.setattr(devices, "_has_mps", lambda: False)
    with pytest.raises(UsageError, match="no device") as caught:
        resolved(name)
    assert caught.value.reason == "device"


def test_torch_is_not_imported_to_find_out_that_there_is_no_gpu(tmp_path: Path):
    code = """
import os
os.environ["CUDA_VISIBLE_DEVICES"] = ""
from medseg.system.devices import resolved
assert resolved("auto") == "cpu"
"""
    assert heavy_imports(code, cwd=tmp_path) == []


@pytest.mark.parametrize(
    ("count", "said", "why", "remedy"),
    [
        (0, "Torch not compiled with CUDA enabled", "the installed torch was not built for it", "use cpu"),
        (
            0,
            "Could not run 'aten::empty' with arguments from the 'MPS' backend.",
            "not built for it",
            "use cpu",
        ),
        (
            2,
            "CUDA error: invalid device ordinal\nmore",
            "no GPU has this number",
            "use cpu or cuda:0 or cuda:1",
        ),
        (0, f"{'a long reason ' * 20}\nmore", "a long reason " * 20, "use cpu"),
    ],
)
def test_a_device_that_torch_cannot_use_is_told_whole_with_those_that_can_be(
    monkeypatch, count, said, why, remedy
):
    def refuse(*_, **__):
        raise RuntimeError(said)

    torch_with(monkeypatch, count)
    monkeypatch.setattr(sys.modules["torch"], "empty", refuse, raising=False)
    monkeypatch.setattr(sys.modules["torch"], "device", str, raising=False)
    with pytest.raises(UsageError) as caught:
        checked("cuda:7")
    assert caught.value.problem.startswith("no device 'cuda:7': ")
    assert caught.value.problem.endswith(why)
    assert caught.value.remedy == remedy


def test_the_cpu_is_checked_without_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert checked("cpu") == "cpu"
