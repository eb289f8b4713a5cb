"""Scans that are read ahead: the same volumes and notices as without, and one loaded model for all."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from support.worlds import tiny, untrained

import medseg
from medseg.errors import InputRefused
from medseg.inference import case_reading
from medseg.inference.backends import graph_cache, openvino
from medseg.inference.case_reading import CaseReading
from medseg.inference.segmenter import Segmenter
from medseg.phantom.thorax import Thorax, default_grid
from medseg.system.notices import collect_notices, notify


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("scans")
    grid = default_grid((9.0, 8.0, 10.0), "LPS")
    return [Thorax.random(n).scan(grid, seed=n).save(folder / f"{n}.nii.gz") for n in range(3)]


def test_the_next_scan_is_read_while_the_present_one_is_segmented(scans, tmp_path, monkeypatch, capsys):
    """The network of the first scan waits until the second one was read, which would never happen in turn."""
    from medseg.cli.segment import segment

    read_files, arrived = [], threading.Event()
    real_read = case_reading.read_channels

    def read_channels(paths, **choices):
        volumes = real_read(paths, **choices)
        read_files.append(paths[0].name)
        if len(read_files) == 2:
            arrived.set()
        return volumes

    waited = []
    real_planes = Segmenter.planes

    def planes(self, prepared):
        waited.append(arrived.wait(60))
        return real_planes(self, prepared)

    monkeypatch.setattr(case_reading, "read_channels", read_channels)
    monkeypatch.setattr(case_reading.memory_budget, "available_bytes", lambda: 64 << 30)
    monkeypatch.setattr(Segmenter, "planes", planes)
    model = untrained(tiny()).save(tmp_path / "model.safetensors")
    segment(scans, output=f"{tmp_path / 'masks'}/", model=str(model))
    assert waited == [True] * 3
    assert sorted(read_files) == ["0.nii.gz", "1.nii.gz", "2.nii.gz"]


def test_several_scans_load_the_model_and_its_graph_once(scans, tmp_path, monkeypatch, capsys):
    from medseg.cli.segment import segment

    counts = {"model": 0, "graph": 0}

    def counted(name, function):
        def call(*given, **named):
            counts[name] += 1
            return function(*given, **named)

        return call

    monkeypatch.setattr(Segmenter, "__init__", counted("model", Segmenter.__init__))
    monkeypatch.setattr(openvino.OpenVino, "_compile", counted("graph", openvino.OpenVino._compile))
    monkeypatch.setattr(graph_cache, "folder", lambda: tmp_path / "graphs")
    model = untrained(tiny()).save(tmp_path / "model.safetensors")
    masks = tmp_path / "masks"
    segment(scans, output=f"{masks}/", model=str(model), engine="openvino")
    assert counts == {"model": 1, "graph": 1}
    alone = medseg.Segmenter(model, engine="openvino")
    for scan in scans:
        expected = alone(medseg.read(scan))
        np.testing.assert_array_equal(medseg.read_mask(masks / scan.name, alone.labels).array, expected.array)


def test_notices_and_errors_arrive_when_the_scan_is_needed(scans, monkeypatch):
    def read_channels(paths, **choices):
        notify("odd", "something odd")
        raise InputRefused("damaged", reason="damaged")

    monkeypatch.setattr(case_reading, "read_channels", read_channels)
    with collect_notices() as early:
        case = CaseReading(scans[:1])
        case.start()
        case._reading.exception(60)
    assert early == []
    with collect_notices() as notices, pytest.raises(InputRefused) as refused:
        case.volumes(1)
    assert (refused.value.reason, [each.reason for each in notices]) == ("damaged", ["odd"])


def test_a_scan_without_room_ahead_is_read_in_its_turn(scans, monkeypatch):
    real_read, tries = case_reading.read_channels, []

    def read_channels(paths, **choices):
        tries.append(paths)
        if len(tries) == 1:
            raise InputRefused("too large", reason="too-large")
        return real_read(paths, **choices)

    monkeypatch.setattr(case_reading, "read_channels", read_channels)
    case = CaseReading(scans[:1])
    case.start()
    (volume,) = case.volumes(1)
    np.testing.assert_array_equal(volume.array, medseg.read(scans[0]).array)
    monkeypatch.setattr(case_reading.memory_budget, "available_bytes", lambda: 1 << 30)
    waiting = CaseReading(scans[:1])
    waiting.start_ahead()
    assert waiting._reading is None
