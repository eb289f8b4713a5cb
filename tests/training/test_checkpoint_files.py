from __future__ import annotations

import ast
import contextlib
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from support.commands import invoke
from support.worlds import tiny, untrained

import medseg
from medseg.errors import ModelRefused
from medseg.inference.model import Model
from medseg.phantom.thorax import Thorax, default_grid
from medseg.training.checkpoint_files import contents, import_weights

WEIGHTS = dict(untrained(tiny()).folds[0])


def saved(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


class Evil:
    """What a hostile pickle does: a call when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("prefix", [None, "network.", "net."])
def test_imported_weights_equal_those_of_the_checkpoint(tmp_path, prefix):
    table = OrderedDict((f"{prefix or ''}{name}", tensor) for name, tensor in WEIGHTS.items())
    whole = {"state_dict": table, "epoch": 3, "optimizer_states": [{}]} if prefix else table
    model = import_weights(saved(whole, tmp_path / "w.pth"), tiny())
    again = Model.load(model.save(tmp_path / "m.safetensors"))
    assert again.digest == model.digest
    assert len(again.provenance["imported_from_sha256"]) == 64
    image = torch.rand(1, 1, 16, 24, 16)
    (ours,), (theirs,) = untrained(tiny()).networks(), again.networks()
    assert torch.equal(ours(image), theirs(image))


def test_tensors_that_share_memory_are_saved_separately(tmp_path):
    whole = torch.zeros(sum(t.numel() for t in WEIGHTS.values()))
    views, start = {}, 0
    for name, tensor in WEIGHTS.items():
        views[name] = whole[start : start + tensor.numel()].view(tensor.shape)
        start += tensor.numel()
    model = import_weights(saved(views, tmp_path / "w.pth"), tiny())
    Model.load(model.save(tmp_path / "m.safetensors"))


def test_the_command_writes_a_model_file(tmp_path):
    (tmp_path / "r.yaml").write_text(tiny().yaml())
    weights = saved(WEIGHTS, tmp_path / "w.pth")
    target = tmp_path / "m.safetensors"
    out, _ = invoke("import-weights", weights, "--recipe", tmp_path / "r.yaml", "-o", target)
    assert "Research use only" in out
    assert Model.load(target).digest[:12] in out
    invoke("import-weights", weights, "--recipe", tmp_path / "r.yaml", "-o", tmp_path / "m.pth", code=2)


def test_a_hostile_checkpoint_has_no_effect_and_leaves_no_file(tmp_path):
    (tmp_path / "r.yaml").write_text(tiny().yaml())
    marker = tmp_path / "ATTACKED"
    for content in (Evil(marker), {"head.bias": Evil(marker)}, {"state_dict": WEIGHTS, "x": Evil(marker)}):
        path = saved(content, tmp_path / "w.pth")
        _, err = invoke(
            "import-weights", path, "--recipe", tmp_path / "r.yaml", "-o", tmp_path / "m.safetensors", code=4
        )
        assert "unsafe: its pickle names posix.mkdir" in err
        assert sorted(p.name for p in tmp_path.iterdir()) == ["r.yaml", "w.pth"]
    pickle.loads(pickle.dumps(Evil(marker)))  # the attack itself works
    assert marker.is_dir()


def test_segment_refuses_a_hostile_checkpoint_with_exit_4_and_no_effect(tmp_path):
    marker = tmp_path / "ATTACKED"
    Thorax().scan(default_grid((24.0, 26.0, 40.0))).save(tmp_path / "scan.nii.gz")
    model = saved({"state_dict": Evil(marker)}, tmp_path / "w.ckpt")
    for name in ("w.ckpt", "w.safetensors"):
        path = model.rename(tmp_path / name)
        model = path
        _, err = invoke(
            "segment", tmp_path / "scan.nii.gz", "-o", tmp_path / "m.nii.gz", "--model", path, code=4
        )
        assert "unsafe" in err
        assert "not loaded" in err
        assert "Traceback" not in err
        assert sorted(p.name for p in tmp_path.iterdir()) == ["scan.nii.gz", name]


def archive(path: Path, entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "not a zip archive"),
        ({"a/version": b"3"}, "no data.pkl"),
        ({"a/data.pkl": b"", "b/data.pkl": b""}, "no data.pkl"),
        ({"/tmp/ATTACKED": b"", "a/data.pkl": b""}, "unsafe: .*outside"),
        ({"../ATTACKED": b"", "a/data.pkl": b""}, "unsafe: .*outside"),
        ({"a\\..\\..\\x": b"", "a/data.pkl": b""}, "unsafe: .*outside"),
        ({"C:\\x": b"", "a/data.pkl": b""}, "unsafe: .*outside"),
        ({"a/data.pkl": b"", "A/Data.pkl": b""}, "the same name"),
        ({"a/data.pkl": bytes((16 << 20) + 1)}, "data.pkl is larger"),
        ({"a/data.pkl": b""} | {f"a/{n}": b"" for n in range(20_000)}, "entries"),
        ({"a/data.pkl": b"", "a/version": b"3"}, "not a complete checkpoint|more than tensors"),
    ],
)
def test_archives_that_torch_would_not_write_are_refused(tmp_path, entries, message):
    with pytest.raises(ModelRefused, match=message):
        contents(archive(tmp_path / "w.pth", entries))
    assert [p.name for p in tmp_path.iterdir()] == ["w.pth"]


def test_a_zip_bomb_is_refused_without_unpacking_it(tmp_path):
    path = archive(tmp_path / "w.pth", {"a/data.pkl": b"", "a/data/0": bytes(64 << 20)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(ModelRefused, match="unsafe: it is compressed"):
        contents(path)


def test_entries_that_overlap_are_refused(tmp_path):
    path = archive(tmp_path / "w.pth", {"a/data.pkl": b"", "a/0": bytes(1000)})
    content = path.read_bytes()
    at = content.rfind(b"PK\x01\x02", 0, content.rfind(b"PK\x05\x06"))
    sizes = struct.pack("<LL", 10**6, 10**6)  # compressed and whole, APPNOTE.TXT 4.3.12
    path.write_bytes(content[: at + 20] + sizes + content[at + 28 :])
    with pytest.raises(ModelRefused, match=r"unsafe: its entries .* overlap"):
        contents(path)


def test_a_long_table_of_contents_is_not_read(tmp_path):
    path = archive(tmp_path / "w.pth", {"a/data.pkl": b""})
    content = path.read_bytes()
    at = content.rfind(b"PK\x05\x06")
    path.write_bytes(content[: at + 12] + struct.pack("<L", 5 << 20) + content[at + 16 :])
    with pytest.raises(ModelRefused, match="table of contents takes 5242880"):
        contents(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_checkpoint_is_refused(tmp_path, share):
    path = saved(WEIGHTS, tmp_path / "w.pth")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelRefused) as caught:
        contents(path)
    assert caught.value.reason == "checkpoint-archive"


def test_checkpoints_with_flipped_bytes_are_refused_or_hold_tensors(tmp_path):
    content = saved(WEIGHTS, tmp_path / "w.pth").read_bytes()
    rng = np.random.default_rng(5)
    for _ in range(60):
        bent = bytearray(content)
        for at in rng.integers(0, 3000, size=3):
            bent[at] ^= 1 << rng.integers(8)
        (tmp_path / "w.pth").write_bytes(bent)
        # Anything but ModelRefused fails the test.
        with contextlib.suppress(ModelRefused):
            import_weights(tmp_path / "w.pth", tiny())


def changed(name: str, value: object) -> dict[str, object]:
    return WEIGHTS | {name: value}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([1, 2], "checkpoint-content"),
        ({}, "checkpoint-content"),
        ({"state_dict": [1]}, "checkpoint-content"),
        ({1: torch.zeros(2)}, "checkpoint-content"),
        (changed("head.bias", 3), "checkpoint-content"),
        (changed("head.bias", {"deeper": torch.zeros(2)}), "checkpoint-content"),
        (changed("head.bias", torch.zeros(2).to_sparse()), "checkpoint-content"),
        (changed("head.bias", torch.zeros(2, device="meta")), "checkpoint-content"),
        (changed("head.bias", torch.zeros(3)), "weights"),
        (changed("head.bias", torch.zeros(1).expand(10**12)), "weights"),
        (changed("head.bias", torch.zeros(2).double()), "weights"),
        (changed("head.bias", torch.tensor([0.0, float("nan")])), "weights"),
        (changed("more", torch.zeros(2)), "weights"),
        ({"network.a": torch.zeros(2), "loss.b": torch.zeros(2)}, "weights"),
        ({"head.bias": torch.zeros(2)}, "weights"),
    ],
)
def test_only_a_flat_table_of_the_networks_tensors_is_accepted(tmp_path, content, reason):
    with pytest.raises(ModelRefused) as caught:
        import_weights(saved(content, tmp_path / "w.pth"), tiny())
    assert caught.value.reason == reason
    assert caught.value.where == str(tmp_path / "w.pth")


def test_a_file_much_larger_than_the_network_is_refused_without_opening_it(tmp_path):
    path = tmp_path / "w.pth"
    with path.open("wb") as file:
        file.truncate(1 << 33)
    with pytest.raises(ModelRefused) as caught:
        import_weights(path, tiny())
    assert caught.value.reason == "checkpoint-size"


@pytest.mark.parametrize("kind", ["folder", "fifo", "gone", "dangling", "pickle"])
def test_a_path_that_is_not_an_archive_is_refused_at_once(tmp_path, kind):
    path = tmp_path / "w.pth"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "dangling":
        path.symlink_to(tmp_path / "gone")
    elif kind == "pickle":  # torch before 1.6
        torch.save(WEIGHTS, path, _use_new_zipfile_serialization=False)
    with pytest.raises(ModelRefused):
        import_weights(path, tiny())


PACKAGE = Path(medseg.__file__).parent
FORBIDDEN = {
    "eval", "exec", "compile", "__import__", "pickle.load", "pickle.loads", "pickle.Unpickler",
    "marshal.loads", "os.system", "os.popen", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load",
    "joblib.load", "dill.load", "torch.jit.load", "torch.hub.load", "runpy.run_path", "pandas.read_pickle",
    "pd.read_pickle", "torch.serialization.add_safe_globals", "importlib.import_module", "shelve.open",
}  # fmt: skip
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "runpy"}


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def dangers(tree: ast.AST, module: str) -> list[str]:
    """What in a module could run what a file says."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in UNSAFE_MODULES]
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNSAFE_MODULES:
            found.append(str(node.module))
        if isinstance(node, ast.ImportFrom) and node.module in ("torch", "numpy", "yaml", "os"):
            # A call under another name would not be found below.
            found += [a.name for a in node.names if a.name in ("load", "unsafe_load", "system", "popen")]
        if not isinstance(node, ast.Call):
            continue
        name, given = dotted(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
        empty = name == "exec" and [ast.dump(a) for a in node.args] == [ast.dump(ast.Constant(""))]
        if (name in FORBIDDEN and not empty) or "unsafe" in name.lower():
            found.append(name)
        if name == "torch.load" and (module != "checkpoint_files" or given.get("weights_only") != "True"):
            found.append("torch.load")
        if name == "yaml.load" and module != "safe_parsing":
            found.append("yaml.load")
        if name in ("np.load", "numpy.load") and given.get("allow_pickle", "False") != "False":
            found.append("np.load")  # numpy's default is False
        if given.get("shell", "False") != "False":
            found.append("shell")
        if "weights_only" in given and given["weights_only"] != "True":
            found.append("weights_only")
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_module_executes_the_content_of_a_file(path):
    assert dangers(ast.parse(path.read_text()), path.stem) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "eval(x)",
        "exec(x)",
        "exec('a')",
        "exec('', x)",
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "torch.load(p, weights_only=True)",  # in another module than checkpoint_files
        "from torch import load",
        "yaml.load(x, Loader=yaml.Loader)",
        "np.load(p, allow_pickle=True)",
        "subprocess.run(x, shell=True)",
        "trainer.fit(t, weights_only=False)",
        "torch.serialization.add_safe_globals([X])",
        "__import__(x)",
    ],
)
def test_the_search_for_dangerous_calls_finds_them(line):
    assert dangers(ast.parse(line), "other")


def test_the_yaml_loader_creates_no_objects():
    from yaml import SafeLoader

    from medseg.datasets.manifest_readers import _TextLoader
    from medseg.system.safe_parsing import PlainLoader, yaml_data

    assert issubclass(PlainLoader, SafeLoader)
    for loader in (PlainLoader, _TextLoader):
        with pytest.raises(ValueError, match="could not determine a constructor"):
            yaml_data("!!python/object/apply:os.getcwd []", loader)
