from __future__ import annotations

import hashlib
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from support.worlds import tiny, untrained

from medseg.errors import ModelRefused, ResourceError, UsageError
from medseg.inference.model import Model
from medseg.inference.model_files import find, names, own_folder, shipped
from medseg.inference.safetensors_header import TensorFile
from medseg.inference.segmenter import Segmenter


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


def test_a_saved_file_has_the_bytes_of_the_model_and_the_usual_permissions(tmp_path):
    model = untrained(tiny(), folds=2)
    path = model.save(tmp_path / "m.safetensors")
    assert path.read_bytes() == model.to_bytes()
    (tmp_path / "other").touch()
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_file_that_cannot_be_written_is_a_resource_error(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr("medseg.inference.model.save_file", full)
    with pytest.raises(ResourceError, match="No space left") as caught:
        untrained(tiny()).save(tmp_path / "m.safetensors")
    assert caught.value.reason == "disk"
    assert not list(tmp_path.iterdir())


def test_equal_models_are_equal_bytes(tmp_path):
    a, b = (untrained(tiny(), folds=2) for _ in range(2))
    assert a.to_bytes() == b.to_bytes()
    assert untrained(tiny(), seed=1).digest != a.digest


def test_the_digest_is_that_of_the_file_read(tmp_path):
    """Also of a file with fewer fields in its recipe than are written now."""
    model = untrained(tiny())
    path = model.save(tmp_path / "m.safetensors")
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    own = json.loads(header["__metadata__"]["medseg"])
    del own["recipe"]["predict"]["whole_planes"]
    header["__metadata__"]["medseg"] = json.dumps(own)
    fresh = json.dumps(header).encode()
    path.write_bytes(len(fresh).to_bytes(8, "little") + fresh + content[8 + length :])
    assert Model.load(path).digest == hashlib.sha256(path.read_bytes()).hexdigest() != model.digest


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
        "one byte": b"\x02",
        "huge header": struct.pack("<Q", 2**62) + whole[8:],
    }.items():
        path.write_bytes(content)
        with pytest.raises(ModelRefused, match="not a whole safetensors file"):
            Model.load(path)
        assert path.read_bytes() == content, name


def rewritten(path, **changes):
    """A model file with a changed header."""
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
    with pytest.raises(ModelRefused, match=r"do not fit.*F32 \[8, 12"):
        Model(wide, untrained(tiny()).folds).networks()
    missing = {name: t for name, t in untrained(tiny()).folds[0].items() if name != "head.bias"}
    path = Model(tiny(), (missing,)).save(tmp_path / "m.safetensors")
    with pytest.raises(ModelRefused, match=r"head\.bias: none"):
        Model.load(path)


def test_nothing_is_left_when_saving_fails(tmp_path, monkeypatch):
    monkeypatch.setattr("medseg.inference.model.save_file", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        untrained(tiny()).save(tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", shipped())
def test_shipped_models_load(name):
    assert Model.load(name).provenance["research_use_only"]


def test_weights_that_are_not_finite_are_refused():
    weights = dict(untrained(tiny()).folds[0])
    double = {name: t.double() for name, t in weights.items()}
    with pytest.raises(ModelRefused, match="F64"):
        Model(tiny(), (double,)).networks()
    weights["head.bias"] = torch.full_like(weights["head.bias"], float("nan"))
    with pytest.raises(ModelRefused, match=r"not finite, first head\.bias"):
        Model(tiny(), (weights,)).networks()


def test_half_precision_halves_the_file_and_computes_in_single(tmp_path):
    whole = untrained(tiny())
    half = Model(tiny(), ({name: t.half() for name, t in whole.folds[0].items()},))
    path = half.save(tmp_path / "half.safetensors")
    assert path.stat().st_size < 0.6 * whole.save(tmp_path / "whole.safetensors").stat().st_size
    loaded = Model.load(path)
    assert loaded.digest == half.digest
    (network,), (reference,) = loaded.networks(), whole.networks()
    image = torch.rand(1, 1, 16, 16, 16)
    found = network(image)
    assert found.dtype == torch.float32
    # Half precision has 11 bits: weights are off by at most 2**-11 of themselves.
    assert torch.allclose(found, reference(image), atol=0.02)


def test_a_model_in_the_users_folder_is_found_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "medseg" / "models"
    assert own_folder() == folder
    assert names() == shipped()
    folder.mkdir(parents=True)
    path = untrained(tiny()).save(folder / "mine.safetensors")
    assert names() == tuple(sorted((*shipped(), "mine")))
    assert find("mine") == path
    with pytest.raises(UsageError, match=r"no such model[\s\S]*mine"):
        find("other")


def test_a_header_with_odd_provenance_is_refused(tmp_path):
    path = rewritten(untrained(tiny()).save(tmp_path / "m.safetensors"), provenance=[1])
    with pytest.raises(ModelRefused, match="not a medseg model"):
        Model.load(path)


PICKLE = b"\x80\x04\x95-\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94"


@pytest.mark.parametrize("name", ["m.pt", "m.pth", "M.CKPT", "m.pkl", "bundle.zip", "m.safetensors", "m"])
@pytest.mark.parametrize("content", [PICKLE, b"PK\x03\x04" + bytes(60)], ids=["pickle", "zip"])
def test_pickles_and_archives_are_refused_unopened_with_the_way_to_import_them(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(
        ModelRefused, match=r"(?s)unsafe.*pickle.*weights were not loaded.*import-weights"
    ) as e:
        Model.load(path)
    assert e.value.reason == "model-pickle"


def test_a_header_length_that_looks_like_a_pickle_is_accepted(tmp_path):
    path = untrained(tiny()).save(tmp_path / "m.safetensors")
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    # Lengths whose little-endian bytes begin as pickles of protocols 2 and 4 do, above the header's own.
    for wanted in (0x10280, 0x10480):
        assert length < wanted
        header = content[8 : 8 + length] + b" " * (wanted - length)
        path.write_bytes(struct.pack("<Q", wanted) + header + content[8 + length :])
        assert path.read_bytes()[:2] in (b"\x80\x02", b"\x80\x04")
        Model.load(path)


@pytest.mark.parametrize("kind", ["folder", "fifo", "device", "link to a folder"])
def test_folders_pipes_and_devices_are_refused_at_once(tmp_path, kind):
    path = tmp_path / "m.safetensors"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    else:
        path.symlink_to(tmp_path)
    with pytest.raises(ModelRefused, match="folder, pipe or device") as caught:
        Model.load(path)
    assert caught.value.reason == "model-kind"


def test_dangling_links_and_too_long_names_are_not_found(tmp_path):
    link = tmp_path / "m.safetensors"
    link.symlink_to(tmp_path / "gone")
    for source in (link, "x" * 5000, tmp_path / "m.safetensors" / "x"):
        with pytest.raises(UsageError, match="no such model"):
            Model.load(source)


def with_header(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"x": entry(shape=(2**62, 2**62))}, "overflow"),
        ({"x": entry(shape=(-2,))}, "-2"),
        ({"x": entry(shape=(True, 2))}, "boolean"),
        ({"x": entry(shape=(1.0, 2))}, "floating point"),
        ({"x": entry(shape=(1,) * 9 + (2,))}, "10 dimensions"),
        ({"x": entry(dtype="F99")}, "unknown variant `F99`"),
        ({"x": entry(dtype=["F32"])}, "invalid type"),
        ({"x": entry(offsets=(0, 2**63))}, "offset"),
        ({"x": entry(offsets=(8, 0))}, "offset"),
        ({"x": entry(offsets=(4, 12))}, "offset"),
        ({"\x1b[2J\n": entry(offsets=(4, 12))}, r"offset.*\\x1b"),
        ({"x": entry(), "y": entry()}, "offset"),
        ({"x": entry(), "y": entry(offsets=(8, 16))}, "not fully covered"),
        ({"x": {"dtype": "F32"}}, "missing field"),
        ({"\x1b[2J": 1}, "invalid type"),
        ([1], "invalid type"),
        (b"{nonsense", "line 1"),
        (b"[" * 100_000, "invalid type"),
        (b'{"x":' + b"[" * 100_000, "recursion limit"),
        (b'{"x":' * 9 + b"1" + b"}" * 9, "missing field"),
        (b'{"a": 1, "a": 1}', "invalid type"),
        (b"\xff\xfe", "UTF-8"),
        ({"__metadata__": {"medseg": 1}}, "expected a string"),
    ],
)
def test_headers_that_lie_are_refused_before_a_tensor_is_made(tmp_path, header, message):
    path = with_header(tmp_path / "m.safetensors", header, bytes(8))
    with pytest.raises(ModelRefused, match=message) as caught:
        TensorFile.read(path)
    assert caught.value.reason == "model-damaged"
    assert caught.value.problem.isprintable()


def test_a_header_of_more_than_8_mib_is_not_read(tmp_path):
    path = tmp_path / "m.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", (8 << 20) + 1))
        file.truncate(1 << 30)
    with pytest.raises(ModelRefused, match="at most 8388608 are read"):
        Model.load(path)


RECIPE = tiny().model_dump(mode="json")
ABSURD = {
    "a patch of 100000 cubed": {"patch": {"size": [100_000] * 3}},
    "a patch of 4096 cubed": {"patch": {"size": [4096] * 3}},
    "widths of a million": {"network": {"kind": "unet", "widths": [10**6] * 2}},
    "two hundred resolutions": {"network": {"widths": [8] * 200}},
    "a million labels": {"labels": [{"name": f"l{n}", "values": [n % 65535 + 1]} for n in range(50_000)]},
    "voxels of a nanometre": {"prepare": RECIPE["prepare"] | {"spacing_mm": [1e-6] * 3}},
    "ten thousand channels": {"channels": ["CT"] * 10_000},
    "an infinite window": {"prepare": RECIPE["prepare"] | {"intensity": {"kind": "window", "low_hu": 0}}},
}


@pytest.mark.parametrize("name", ABSURD)
def test_an_absurd_recipe_in_a_header_is_refused(tmp_path, name):
    path = untrained(tiny()).save(tmp_path / "m.safetensors")
    with pytest.raises(ModelRefused) as caught:
        Model.load(rewritten(path, recipe=RECIPE | ABSURD[name]))
    assert caught.value.reason == "model-recipe"
    assert len(str(caught.value)) < 600


def test_a_recipe_of_a_network_of_gigabytes_is_refused_without_its_memory(tmp_path):
    path = untrained(tiny()).save(tmp_path / "m.safetensors")
    vast = RECIPE | {"network": {"widths": [4096] * 8}, "patch": {"size": [128, 128, 256]}}
    rewritten(path, recipe=vast, folds=100)
    code = f"""
import resource
import medseg.networks.unet  # what every model needs
from medseg.errors import ModelRefused
from medseg.inference.model import Model
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    Model.load({str(path)!r})
except ModelRefused as error:
    print(error.reason, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    reason, grown_mb = done.stdout.split()
    assert reason == "weights"
    assert int(grown_mb) < 200


@pytest.mark.parametrize("provenance", ["NaN", "1e999", "Infinity", "[" * 200 + "]" * 200])
def test_odd_numbers_and_depths_in_a_header_are_refused(tmp_path, provenance):
    path = untrained(tiny()).save(tmp_path / "m.safetensors")
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    ours = header["__metadata__"]["medseg"]
    header["__metadata__"]["medseg"] = ours.replace(
        '"provenance": {}', f'"provenance": {{"a": {provenance}}}'
    )
    with pytest.raises(ModelRefused, match="not a medseg model"):
        Model.load(with_header(path, header, content[8 + size :]))


def test_extra_tensors_and_extra_folds_are_refused(tmp_path):
    two = untrained(tiny(), folds=2).save(tmp_path / "m.safetensors")
    with pytest.raises(ModelRefused, match=r"first 1\."):
        Model.load(rewritten(two, folds=1))
    with pytest.raises(ModelRefused, match=r"first 2\."):
        Model.load(rewritten(untrained(tiny(), folds=2).save(two), folds=3))


def test_weights_stay_when_the_file_is_overwritten_or_truncated(tmp_path):
    """A memory map would show the new bytes, or end the process."""
    path = untrained(tiny(), seed=1).save(tmp_path / "m.safetensors")
    model = Model.load(path)
    before, digest = model.to_bytes(), hashlib.sha256(path.read_bytes()).hexdigest()
    other = untrained(tiny(), seed=2).to_bytes()
    assert len(other) == path.stat().st_size
    with path.open("r+b") as file:
        file.write(other)
    assert (model.to_bytes(), model.digest) == (before, digest)
    assert Model.load(path).digest == hashlib.sha256(other).hexdigest()
    with path.open("r+b") as file:
        file.truncate(0)
    assert (model.to_bytes(), model.digest) == (before, digest)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path = untrained(tiny(), seed=1).save(tmp_path / "m.safetensors")
    whole, other = path.read_bytes(), untrained(tiny(name="another"), seed=1).to_bytes()
    read = TensorFile.read
    for content in (whole[:-4], whole + b"more", other, b""):

        def then_change(path, content=content):
            checked = read(path)
            path.write_bytes(content)
            return checked

        path.write_bytes(whole)
        monkeypatch.setattr(TensorFile, "read", then_change)
        with pytest.raises(ModelRefused, match="changed while it was being read") as caught:
            Model.load(path)
        assert caught.value.reason == "model-damaged"


def test_weights_changed_in_place_have_another_digest(tmp_path):
    path = untrained(tiny()).save(tmp_path / "m.safetensors")
    model = Model.load(path)
    segment = Segmenter(model, engine="torch")
    read = model.digest
    next(iter(model.folds[0].values())).mul_(2)
    assert model.digest == hashlib.sha256(model.to_bytes()).hexdigest() != read
    assert segment.digest == read
    assert Segmenter(model, engine="torch").digest == model.digest
    assert Model.load(path).digest == read
