from __future__ import annotations

import json
import struct

import pytest
import torch
from safetensors.torch import save_file
from worlds import tiny, untrained

from medseg.errors import ModelRefused, UsageError
from medseg.model import Model, shipped


@pytest.mark.parametrize("dims", [2, 3])
def test_a_saved_and_loaded_model_gives_bitwise_equal_logits(tmp_path, dims):
    recipe = tiny(dims, network={"norm": "batch"})
    model = untrained(recipe, folds=2)
    path = model.save(tmp_path / "m.safetensors")
    loaded = Model.load(path)
    assert loaded.recipe == recipe
    image = torch.rand(3, recipe.in_channels, *recipe.patch.size)
    for ours, theirs in zip(model.networks(), loaded.networks(), strict=True):
        assert torch.equal(ours(image), theirs(image))
    assert loaded.digest == model.digest


def test_equal_models_are_equal_bytes(tmp_path):
    a, b = (untrained(tiny(), folds=2) for _ in range(2))
    assert a.to_bytes() == b.to_bytes()
    assert untrained(tiny(), seed=1).digest != a.digest


def test_provenance_survives(tmp_path):
    model = untrained(tiny())
    model = Model(model.recipe, model.folds, {"train_cases": ["a", "b"]})
    assert Model.load(model.save(tmp_path / "m.safetensors")).provenance == {"train_cases": ["a", "b"]}


def test_a_missing_model_names_the_shipped_ones(tmp_path):
    with pytest.raises(UsageError, match="no such model") as caught:
        Model.load(tmp_path / "none.safetensors")
    assert all(name in str(caught.value) for name in shipped())


def test_damaged_files_are_refused(tmp_path):
    path = untrained(tiny()).save(tmp_path / "m.safetensors")
    whole = path.read_bytes()
    for name, content in {
        "truncated": whole[:-100],
        "empty": b"",
        "noise": b"\x00" * 64,
        "pickle": b"\x80\x04N.",
        "huge header": struct.pack("<Q", 2**62) + whole[8:],
    }.items():
        path.write_bytes(content)
        with pytest.raises(ModelRefused, match="not a whole safetensors file"):
            Model.load(path)
        assert path.read_bytes() == content, name


def rewritten(path, **changes):
    """A model file whose header is changed."""
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    ours = json.loads(header["__metadata__"]["medseg"]) | changes
    header["__metadata__"]["medseg"] = json.dumps(ours)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])
    return path


@pytest.mark.parametrize("folds", [0, -1, "1", 10**9, None])
def test_absurd_fold_counts_are_refused(tmp_path, folds):
    path = rewritten(untrained(tiny()).save(tmp_path / "m.safetensors"), folds=folds)
    with pytest.raises(ModelRefused):
        Model.load(path)


def test_other_formats_are_refused(tmp_path):
    path = rewritten(untrained(tiny()).save(tmp_path / "m.safetensors"), format="medseg-model-9")
    with pytest.raises(ModelRefused, match="medseg-model-9"):
        Model.load(path)
    save_file({"x": torch.zeros(2)}, path)
    with pytest.raises(ModelRefused, match="not a medseg model"):
        Model.load(path)


def test_a_header_with_a_broken_recipe_is_refused(tmp_path):
    path = rewritten(untrained(tiny()).save(tmp_path / "m.safetensors"), recipe={"name": "x"})
    with pytest.raises(ModelRefused, match="recipe"):
        Model.load(path)


def test_weights_that_do_not_fit_are_refused_by_name(tmp_path):
    wide = tiny(network={"widths": [4, 8, 16]})
    with pytest.raises(ModelRefused, match=r"do not fit.*shape \(8, 12"):
        Model(wide, untrained(tiny()).folds).networks()
    missing = {name: t for name, t in untrained(tiny()).folds[0].items() if name != "head.bias"}
    path = Model(tiny(), (missing,)).save(tmp_path / "m.safetensors")
    with pytest.raises(ModelRefused, match=r"head\.bias: shape missing"):
        Model.load(path)


def test_nothing_is_left_when_saving_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(Model, "to_bytes", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        untrained(tiny()).save(tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", shipped())
def test_shipped_models_load(name):
    assert Model.load(name).provenance["research_use_only"]


def test_weights_that_would_silently_give_nothing_are_refused():
    weights = dict(untrained(tiny()).folds[0])
    half = {name: t.half() for name, t in weights.items()}
    with pytest.raises(ModelRefused, match="float16"):
        Model(tiny(), (half,)).networks()
    weights["head.bias"] = torch.full_like(weights["head.bias"], float("nan"))
    with pytest.raises(ModelRefused, match=r"not finite, first head\.bias"):
        Model(tiny(), (weights,)).networks()


def test_a_header_with_odd_provenance_is_refused(tmp_path):
    path = rewritten(untrained(tiny()).save(tmp_path / "m.safetensors"), provenance=[1])
    with pytest.raises(ModelRefused, match="not a medseg model"):
        Model.load(path)
