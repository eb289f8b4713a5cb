from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import pytest
from support.foreign_models import training_folder, zipped

from medseg.errors import ModelRefused
from medseg.model_import.model_sources import training_folders, unpacked


def test_an_archive_gives_the_files_that_an_import_needs(tmp_path):
    folder = training_folder(tmp_path, folds=2)
    (folder / "fold_0" / "progress.png").write_bytes(b"x" * 1000)
    path = zipped(folder, tmp_path / "m.zip")
    with unpacked(path) as place:
        (found,) = training_folders(place)
        assert sorted(p.name for p in place.rglob("*") if p.is_file()) == [
            "checkpoint_final.pth", "checkpoint_final.pth", "dataset.json", "plans.json"
        ]  # fmt: skip
        assert found.configuration == "3d_fullres"
        assert found.folds["1"].read_bytes() == (folder / "fold_1" / "checkpoint_final.pth").read_bytes()
    assert not place.exists()


def hostile(path: Path, entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in entries.items():
            file.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"../plans.json": b"{}"}, "outside"),
        ({"/tmp/plans.json": b"{}"}, "outside"),
        ({"a\\..\\plans.json": b"{}"}, "outside"),
        ({"C:/plans.json": b"{}"}, "outside"),
        ({"a/plans.json": b"{}", "A/plans.json": b"{}"}, "the same name"),
        ({f"{n}": b"" for n in range(20_001)}, "entries"),
    ],
)
def test_an_unsafe_archive_is_refused_before_anything_is_unpacked(tmp_path, entries, message):
    path = hostile(tmp_path / "m.zip", entries)
    with pytest.raises(ModelRefused, match=message) as caught, unpacked(path):
        pytest.fail("it was unpacked")
    assert caught.value.reason == "import-archive"
    assert [p.name for p in tmp_path.iterdir()] == ["m.zip"]


def test_a_zip_bomb_is_refused_unread(tmp_path):
    path = hostile(tmp_path / "m.zip", {"a/checkpoint_final.pth": bytes(64 << 20)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(ModelRefused, match=r"unsafe: .* would become 67108864"), unpacked(path):
        pytest.fail("it was unpacked")


def test_links_in_an_archive_are_refused(tmp_path):
    entry = zipfile.ZipInfo("a/plans.json")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as file:
        file.writestr(entry, "/etc/passwd")
    with pytest.raises(ModelRefused, match="a link or device"), unpacked(tmp_path / "m.zip"):
        pytest.fail("it was unpacked")


@pytest.mark.parametrize("share", [0.2, 0.7, 0.99])
def test_a_truncated_archive_is_refused(tmp_path, share):
    path = zipped(training_folder(tmp_path), tmp_path / "m.zip")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ModelRefused) as caught, unpacked(path):
        pytest.fail("it was unpacked")
    assert caught.value.reason == "import-archive"


def test_a_damaged_entry_is_refused(tmp_path):
    path = zipped(training_folder(tmp_path), tmp_path / "m.zip")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ModelRefused) as caught, unpacked(path):
        pytest.fail("it was unpacked")
    assert caught.value.reason == "import-archive"


def test_folders_below_are_found_and_links_are_not_followed(tmp_path):
    training_folder(tmp_path / "task" / "Dataset291_A")
    training_folder(tmp_path / "task" / "Dataset292_B", name="2d", found=None)
    (tmp_path / "task" / "loop").symlink_to(tmp_path / "task")
    found = training_folders(tmp_path / "task")
    assert [each.path.parent.name for each in found] == ["Dataset291_A", "Dataset292_B"]


def test_the_final_checkpoint_is_preferred_to_the_best(tmp_path):
    folder = training_folder(tmp_path, folds=2)
    best = folder / "fold_1" / "checkpoint_best.pth"
    (folder / "fold_0" / "checkpoint_best.pth").write_bytes(b"")
    (folder / "fold_1" / "checkpoint_final.pth").rename(best)
    (found,) = training_folders(folder)
    assert [path.name for path in found.folds.values()] == ["checkpoint_final.pth", "checkpoint_best.pth"]


def test_a_folder_without_a_training_is_refused(tmp_path):
    with pytest.raises(ModelRefused) as caught:
        training_folders(tmp_path)
    assert caught.value.reason == "import-source"
