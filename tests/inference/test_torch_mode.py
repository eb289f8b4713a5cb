"""The fastest way to run a network on a device, with a clock of its own and the CPU as the device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.worlds import tiny, untrained

import medseg
from medseg.inference.backends import graph_cache
from medseg.inference.backends.torch_mode import Mode, fastest, mode_key, remembered
from medseg.phantom.thorax import Thorax, default_grid


def modes_by(cost, build=None, **named):
    """The mode that is chosen if a call takes ``cost(mode)`` seconds."""

    def built(mode):
        run = build(mode) if build else (lambda windows: windows * 2)
        return type("Run", (), {"__call__": lambda self, windows: run(windows), "mode": mode})()

    return fastest(
        built,
        lambda batch: torch.ones(batch, 1, 4, 4),
        Mode(half=True, batch=2),
        seconds=lambda run, _: cost(run.mode),
        **named,
    )


def test_the_mode_with_the_least_time_per_window_is_chosen():
    # 3 s a window with channels last, 2 s without, 1 s more in half precision; batches cost nothing less.
    slow = modes_by(lambda mode: mode.batch * (2 + mode.channels_last + mode.half))
    assert slow == Mode(channels_last=False, half=False, batch=2)
    # 8 s a call up to 8 windows, then 1 s a window: 8 is as good as 16, and smaller batches are worse.
    assert modes_by(lambda mode: max(8, mode.batch) - mode.half).batch == 8


def test_graphs_are_only_used_if_allowed_and_faster():
    def cost(mode):
        return mode.batch * (0.5 if mode.graph else 1.0)

    assert not modes_by(cost).graph
    assert modes_by(cost, graphs=True).graph
    assert not modes_by(lambda mode: mode.batch * (0.97 if mode.graph else 1.0), graphs=True).graph


def test_a_mode_that_fails_or_differs_is_not_chosen():
    def build(mode):
        if mode.channels_last:
            raise torch.OutOfMemoryError("out of memory")
        return lambda windows: windows * (2.2 if mode.half else 2)  # a tenth off in half precision

    chosen = modes_by(lambda mode: 0.1 if mode.half else mode.batch, build)
    assert chosen == Mode(channels_last=False, half=False, batch=2)
    nowhere = modes_by(lambda mode: 1, lambda mode: lambda windows: windows / 0)
    assert nowhere == Mode(half=True, batch=2)


def test_a_measured_mode_is_remembered_for_the_model_and_the_device(monkeypatch, tmp_path):
    monkeypatch.setattr(graph_cache, "folder", lambda: tmp_path)
    found = iter([Mode(batch=4), Mode(batch=8), Mode(batch=16)])
    key = mode_key("weights", (1, 1, 8, 8), torch.device("cpu"), free=False, stage=None)
    assert remembered(key, lambda: next(found)) == remembered(key, lambda: next(found)) == Mode(batch=4)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
    other = mode_key("weights", (1, 1, 8, 8), torch.device("cuda:1"), free=False, stage=None)
    assert other == mode_key("weights", (1, 1, 8, 8), torch.device("cuda:0"), free=False, stage=None) != key
    assert remembered(other, lambda: next(found)) == Mode(batch=8)
    (tmp_path / f"{other}.mode").write_bytes(b"damaged")
    assert remembered(other, lambda: next(found)) == Mode(batch=16)


@pytest.mark.parametrize("mode", [Mode(batch=4), Mode(channels_last=False, batch=1)])
def test_masks_do_not_depend_on_layout_and_batch(mode, monkeypatch, tmp_path):
    monkeypatch.setattr(graph_cache, "folder", lambda: tmp_path)
    monkeypatch.setattr("medseg.inference.backends.pytorch.fastest", lambda *_, **__: mode)
    model, scan = untrained(tiny()), Thorax().scan(default_grid((8.0, 9.0, 12.0)), seed=1)
    expected = medseg.Segmenter(model, engine="torch", device="cpu")(scan)
    monkeypatch.setattr("medseg.inference.segmenter.resolved", lambda *_, **__: "cpu:0")
    segment = medseg.Segmenter(model, engine="torch")
    assert segment._engines[0].batch == mode.batch
    np.testing.assert_array_equal(segment(scan).array, expected.array)
