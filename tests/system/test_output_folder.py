from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from medseg.errors import ResourceError, UsageError
from medseg.system import output_folder
from medseg.system.output_folder import check_output_folder, make_output_folder


def test_a_folder_is_made_with_those_above_it(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    check_output_folder(folder)
    assert not (tmp_path / "a").exists()
    make_output_folder(folder)
    make_output_folder(folder)
    assert folder.is_dir()


@pytest.mark.parametrize("name", ["file", "file/b", "broken"])
def test_a_file_in_its_place_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "broken").symlink_to(tmp_path / "missing")
    with pytest.raises(UsageError, match="is not a folder") as caught:
        make_output_folder(tmp_path / name)
    assert caught.value.reason == "no-folder"
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("name", [".", "new", "new/below"])
def test_a_lack_of_permission_is_named_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(ResourceError, match="no permission to write in") as caught:
        make_output_folder(tmp_path / name)
    assert caught.value.reason == "disk"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_the_system_refuses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(output_folder.Path, "mkdir", full)
    with pytest.raises(ResourceError, match="No space left on device"):
        make_output_folder(tmp_path / "new")
