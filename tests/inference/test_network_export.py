from __future__ import annotations

import json

import pytest
import torch
from support.commands import invoke
from support.contexts import CONTEXT
from support.packages import refusal
from support.worlds import tiny, untrained

import medseg
from medseg.errors import ModelRefused, UsageError
from medseg.inference import network_export


@pytest.mark.parametrize("dims", [2, 3])
def test_the_file_gives_the_logits_of_the_model(tmp_path, dims):
    made = untrained(tiny(dims))
    model, network = made.save(tmp_path / "model.safetensors"), made.networks()[0]
    windows = torch.rand(1, made.recipe.in_channels, *made.recipe.patch.size)
    with torch.no_grad():
        wanted = network(windows)
        extra = {"medseg.json": ""}
        scripted = torch.jit.load(medseg.export_network(model, tmp_path / "network.pt"), _extra_files=extra)
        assert torch.allclose(scripted(windows), wanted, atol=1e-6)
        path = medseg.export_network(model, tmp_path / "network.pt2", form="torch-export")
        kept = {"medseg.json": ""}
        assert torch.allclose(torch.export.load(path, extra_files=kept).module()(windows), wanted, atol=1e-6)
    facts = json.loads(extra["medseg.json"])
    assert facts == json.loads(kept["medseg.json"])
    assert medseg.Recipe.checked(facts["recipe"]) == made.recipe
    assert facts["input"] == {"shape": [*windows.shape], "dtype": "float32", "other_sides": False}
    assert facts["labels"] == {"right_lung": 1, "left_lung": 2}


def test_one_file_holds_one_network(tmp_path):
    folds = untrained(tiny(), folds=2).save(tmp_path / "folds.safetensors")
    stages = untrained(tiny(**CONTEXT)).save(tmp_path / "stages.safetensors")
    for model in (folds, stages):
        error = refusal(UsageError, "export-format", medseg.export_network, model, tmp_path / "network.pt")
        assert "has 2 networks" in str(error)
    refusal(UsageError, "format", medseg.export_network, folds, tmp_path / "network.onnx")
    assert not [*tmp_path.glob("network*")]


def test_another_network_is_not_written(tmp_path, monkeypatch):
    model = untrained(tiny()).save(tmp_path / "model.safetensors")
    trace = torch.jit.trace

    class Shifted(torch.nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, windows):
            return self.network(windows) + 0.1

    monkeypatch.setattr(
        torch.jit, "trace", lambda network, *rest, **options: trace(Shifted(network), *rest, **options)
    )
    refusal(ModelRefused, "self-test", network_export.export_network, model, tmp_path / "network.pt")
    assert not (tmp_path / "network.pt").exists()


def test_from_the_command_line(tmp_path):
    model = untrained(tiny()).save(tmp_path / "model.safetensors")
    out, _ = invoke("export", model, "--format", "torchscript", "-o", tmp_path / "network.ts")
    assert "wrote" in out
    assert (tmp_path / "network.ts").is_file()
    _, err = invoke("export", model, "--format", "torchscript", "--openvino", "-o", tmp_path / "x.ts", code=2)
    assert "not for --format torchscript" in err
