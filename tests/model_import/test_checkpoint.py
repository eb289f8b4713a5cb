from __future__ import annotations

import io
import os
import pickle
import pickletools
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support.foreign_models import checkpoint, lungmask_weights

from medseg.errors import ModelRefused
from medseg.model_import.checkpoint import Checkpoint, tensor_table, type_of
from medseg.model_import.pickled_values import RefusedPickle, pickled_values

TENSORS = {
    "a": torch.arange(6.0).reshape(2, 3),
    "half": torch.ones(2, dtype=torch.float16),
    "brain": torch.ones(2, dtype=torch.bfloat16),
    "whole": torch.tensor([1, -2]),
    "number": torch.tensor(3.5),
    "none": torch.empty(0, 4),
    "turned": torch.arange(6.0).reshape(2, 3).T,
    "parameter": torch.nn.Parameter(torch.ones(2)),
}
VIEWS = torch.arange(12.0)
TENSORS |= {"first": VIEWS[:4].reshape(2, 2), "rest": VIEWS[4:]}


def read_back(path: Path, key: str = "network_weights") -> dict[str, torch.Tensor]:
    found = Checkpoint.read(path)
    table = tensor_table(found.values[key] if key else found.values)
    assert table is not None
    return found.tensors(table)


@pytest.mark.parametrize("old", [False, True])
def test_tensors_equal_those_that_torch_loads(tmp_path, old):
    path = tmp_path / "w.pth"
    torch.save(OrderedDict(TENSORS), path, _use_new_zipfile_serialization=not old)
    found, expected = read_back(path, ""), torch.load(path, weights_only=True)
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor.detach())


def test_values_of_a_checkpoint_are_those_that_were_saved(tmp_path):
    torch.save(checkpoint({"x.conv.weight": torch.ones(2)}), tmp_path / "c.pth")
    values = Checkpoint.read(tmp_path / "c.pth").values
    assert values["logging"]["mean_fg_dice"] == [0.5, 0.75]
    assert values["logging"]["dice_per_class_or_region"] == [[0.5, 0.25]]
    assert (values["_best_ema"], values["current_epoch"]) == (0.625, 1000)
    assert values["inference_allowed_mirroring_axes"] == (0, 1, 2)
    assert values["init_args"]["device"] == "cuda:0"
    assert values["init_args"]["dataset_json"]["labels"] == {"background": 0, "lung": 1, "lesion": 2}


def test_a_state_dict_with_the_versions_of_its_modules_is_read(tmp_path):
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    torch.save(network.state_dict(), tmp_path / "w.pth")
    found = read_back(tmp_path / "w.pth", "")
    assert all(torch.equal(found[name], tensor) for name, tensor in network.state_dict().items())
    assert type_of(Checkpoint.read(tmp_path / "w.pth").values["1.num_batches_tracked"]) == torch.int64


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_plain_values_of_every_protocol_equal_those_of_pickle(protocol):
    shared = ["ä", 1]
    value = {"a": [1, -5, 2**70, 1.5, None, True, False], "b": (1, (2, 3, 4, 5), ()), "c": shared, 3: shared}
    value |= {"bytes": list(range(300)), "text": "x" * 300}
    assert pickled_values(io.BytesIO(pickle.dumps(value, protocol))) == value


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16, np.int64, np.int32, np.uint8, np.bool_])
def test_numpy_scalars_are_numbers(kind):
    assert pickled_values(io.BytesIO(pickle.dumps([kind(1)], 2))) == [1]


class Call:
    """What a hostile pickle does: a call when it is loaded."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Plain:
    """A class of its own."""


def attacks(marker: Path) -> list[object]:
    return [
        Call(os.mkdir, str(marker)),
        Call(os.system, f"mkdir {marker}"),
        Call(eval, f"__import__('os').mkdir({str(marker)!r})"),
        Call(exec, f"open({str(marker)!r}, 'w')"),
        Call(getattr, "text", "upper"),
        Call(torch.load, str(marker)),
        Call(bytes, 1 << 40),
        np.zeros(3),
        np.dtype("O"),
        Plain(),
        Plain,
        Path("x"),
        {1, 2},
        torch.nn.Linear(1, 1),
        {(1, 2): 3},
        nested_pickle(),
    ]


def nested_pickle() -> object:
    return Call(pickle.loads, pickle.dumps(Call(os.mkdir, "ATTACKED")))


@pytest.mark.parametrize("number", range(16))
@pytest.mark.parametrize("place", ["alone", "weight", "log", "optimizer"])
def test_a_hostile_checkpoint_is_refused_without_effect(tmp_path, number, place, monkeypatch):
    monkeypatch.chdir(tmp_path)
    attack = attacks(tmp_path / "ATTACKED")[number]
    content = checkpoint({"x.conv.weight": torch.ones(2)})
    if place == "alone":
        content = attack
    elif place == "weight":
        content["network_weights"]["evil"] = attack
    elif place == "log":
        content["logging"] = {"mean_fg_dice": [attack]}
    else:
        content["optimizer_state"] = attack
    torch.save(content, tmp_path / "c.pth")
    with pytest.raises(ModelRefused) as caught:
        Checkpoint.read(tmp_path / "c.pth")
    assert caught.value.reason == "checkpoint-unsafe"
    assert "nothing was run" in caught.value.problem
    assert [path.name for path in tmp_path.iterdir()] == ["c.pth"]


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_call_in_the_old_format_is_refused_without_effect(tmp_path, protocol):
    start = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2)
    for head in (b"", start, start + pickle.dumps({"little_endian": True}, 2)):
        (tmp_path / "w.pth").write_bytes(head + pickle.dumps(Call(os.mkdir, str(tmp_path / "X")), protocol))
        with pytest.raises(ModelRefused):
            Checkpoint.read(tmp_path / "w.pth")
        assert [path.name for path in tmp_path.iterdir()] == ["w.pth"]


HOSTILE = {
    "copies": b"(" + b"N" * 1_000_000 + b"t0ctorch\nSize\n(g0\ntR" + b"ctorch\nSize\n(g0\ntR" * 200 + b"l.",
    "itself": b"]q\x00(h\x00h\x00e.",
    "empty stack": b"\x80\x02a.",
    "no end": b"\x80\x02N",
    "two values": b"NN.",
    "unknown memory": b"h\x05.",
    "extension": b"\x82\x01.",
    "instance": b"(ios\nsystem\n.",
    "object": b"cos\nsystem\n)\x81.",
    "attribute of a known module": b"ctorch\nload\n.",
    "a storage that is called": b"ctorch\nFloatStorage\n(K\x01tR.",
    "a reference": b"K\x01Q.",
    "text reference": b"Pabc\n.",
    "huge length": b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "endless number": b"I" + b"9" * 10_000 + b"\n.",
}


@pytest.mark.parametrize("kind", sorted(HOSTILE))
def test_a_program_for_the_pickle_machine_is_refused_in_little_memory(kind):
    tracemalloc.start()
    if kind == "itself":
        assert isinstance(pickled_values(io.BytesIO(HOSTILE[kind])), list)
    else:
        with pytest.raises(ValueError):  # noqa: PT011 - every kind has its own text
            pickled_values(io.BytesIO(HOSTILE[kind]))
    assert tracemalloc.get_traced_memory()[1] < 400 << 20
    tracemalloc.stop()


def test_a_dotted_name_of_another_module_is_not_followed():
    program = b"\x80\x04\x8c\x05torch\x8c\x04load\x93."
    assert any(code.name == "STACK_GLOBAL" for code, _, _ in pickletools.genops(program))
    with pytest.raises(RefusedPickle, match=r"the name torch\.load"):
        pickled_values(io.BytesIO(program))


def rebuilt(tmp_path: Path, *arguments: object) -> Path:
    """A checkpoint with one tensor, described by other arguments."""

    class Lie:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, arguments

    torch.save({"w": Lie()}, tmp_path / "w.pth")
    return tmp_path / "w.pth"


@pytest.mark.filterwarnings("ignore:TypedStorage")
@pytest.mark.parametrize(
    ("offset", "shape", "stride"),
    [
        (0, (5,), (1,)),
        (3, (2,), (1,)),
        (-1, (2,), (1,)),
        (0, (2, 3), (1,)),
        (0, (2,), (2**62,)),
        (0, (2.5,), (1,)),
        (0, (1,) * 9, (1,) * 9),
    ],
)
def test_a_tensor_that_reaches_beyond_its_numbers_is_refused(tmp_path, offset, shape, stride):
    storage = torch.zeros(4).storage()
    with pytest.raises(ModelRefused):
        Checkpoint.read(rebuilt(tmp_path, storage, offset, shape, stride, False, OrderedDict()))


def again(path: Path, changed: Callable[[str, bytes], bytes]) -> None:
    """Writes an archive again with other content in its entries."""
    with zipfile.ZipFile(path) as file:
        entries = {entry.filename: file.read(entry) for entry in file.infolist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in entries.items():
            file.writestr(name, changed(name, content))


def test_a_storage_that_is_shorter_than_its_tensor_is_refused(tmp_path):
    torch.save({"w": torch.zeros(100)}, tmp_path / "w.pth")
    again(tmp_path / "w.pth", lambda name, old: old[:8] if name.endswith("data/0") else old)
    with pytest.raises(ModelRefused) as caught:
        read_back(tmp_path / "w.pth", "")
    assert caught.value.reason == "checkpoint-archive"


def test_numbers_of_the_other_byte_order_are_refused(tmp_path):
    torch.save({"w": torch.zeros(2)}, tmp_path / "w.pth")
    again(tmp_path / "w.pth", lambda name, old: b"big" if name.endswith("byteorder") else old)
    with pytest.raises(ModelRefused, match="big-endian"):
        read_back(tmp_path / "w.pth", "")


@pytest.mark.parametrize("kind", ["folder", "fifo", "gone", "text"])
def test_a_path_that_is_not_a_checkpoint_is_refused_at_once(tmp_path, kind):
    path = tmp_path / "w.pth"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "text":
        path.write_text("hello")
    with pytest.raises(ModelRefused):
        Checkpoint.read(path)


def mutant(content: bytes, rng: np.random.Generator, *, cut: bool = False) -> bytes:
    bent = bytearray(content)
    for at in rng.integers(0, 4000, size=rng.integers(1, 4)):
        bent[at % len(bent)] ^= 1 << rng.integers(8)
    return bytes(bent[: rng.integers(len(bent))] if cut else bent)


def outcome(path: Path) -> str:
    try:
        found = Checkpoint.read(path)
        found.tensors(tensor_table(found.values) or {})
    except ModelRefused as error:
        return error.reason if error.problem.isprintable() else "not printable"
    return "read"


@pytest.mark.filterwarnings("ignore:.*escape sequence")
@pytest.mark.parametrize("old", [False, True])
def test_200_mutants_are_read_or_refused(tmp_path, old):
    """Anything but ModelRefused fails the test."""
    path = lungmask_weights(tmp_path / "w.pth", old=old)
    content, rng, outcomes = path.read_bytes(), np.random.default_rng(7), []
    for number in range(200):
        if old or number % 2:
            path.write_bytes(mutant(content, rng, cut=number % 10 == 9))
        else:  # a whole archive whose pickle is damaged
            path.write_bytes(content)
            again(path, lambda name, old: mutant(old, rng) if name.endswith("data.pkl") else old)
        outcomes.append(outcome(path))
    assert {"read", "checkpoint-archive", "checkpoint-unsafe"} <= set(outcomes)
    assert [each.name for each in tmp_path.iterdir()] == ["w.pth"]


def test_a_long_log_is_bounded():
    program = b"](" + b"K\x01" * 4_100_000 + b"e."
    with pytest.raises(RefusedPickle, match="instructions"):
        pickled_values(io.BytesIO(program))
