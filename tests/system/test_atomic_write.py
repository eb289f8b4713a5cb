import errno
import os
import time

import pytest

from medseg.errors import ResourceError, UsageError
from medseg.system import atomic_write


@pytest.fixture(autouse=True)
def no_memory_of_other_tests(monkeypatch):
    monkeypatch.setattr(atomic_write, "_swept", set())


def test_the_new_file_replaces_the_old_one(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with atomic_write.replacing(tmp_path / "a.txt") as fresh:
        fresh.write_text("new")
        assert (tmp_path / "a.txt").read_text() == "old"
    assert (tmp_path / "a.txt").read_text() == "new"
    assert [f.name for f in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    (tmp_path / "a.txt").write_text("old")

    def fail():
        with atomic_write.replacing(tmp_path / "a.txt") as fresh:
            fresh.write_text("half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert [f.read_text() for f in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (OSError(), "OSError"),
        (RuntimeError("Exception thrown in SimpleITK\n/path.cxx:1\nsitk::ERROR: full"), "sitk::ERROR: full"),
    ],
)
def test_the_message_names_the_disk_error(tmp_path, error, message):
    def fail():
        with atomic_write.replacing(tmp_path / "a.txt"):
            raise error

    with pytest.raises(ResourceError, match=f"cannot be written: {message}") as caught:
        fail()
    assert caught.value.reason == "disk"
    assert list(tmp_path.iterdir()) == []


def test_names_of_maximum_length(tmp_path):
    name = "n" * 251 + ".txt"
    with atomic_write.replacing(tmp_path / name) as fresh:
        fresh.write_text("x")
    assert (tmp_path / name).read_text() == "x"


def test_leftovers_of_killed_processes_are_removed_after_a_day(tmp_path):
    for name, days in ((".medseg-old", 2), (".medseg-new", 0), (".other", 2)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half.nii").write_text("x")
        when = time.time() - days * 24 * 3600
        os.utime(tmp_path / name, (when, when))
    with atomic_write.replacing(tmp_path / "a.txt") as fresh:
        fresh.write_text("x")
    assert sorted(f.name for f in tmp_path.iterdir()) == [".medseg-new", ".other", "a.txt"]
    with atomic_write.replacing(tmp_path / "b.txt") as fresh:
        fresh.write_text("x")


@pytest.mark.parametrize(("path", "reason"), [("no/a.txt", "no-folder"), (".", "is-folder")])
def test_unwritable_paths_are_refused(tmp_path, path, reason):
    with pytest.raises(UsageError) as caught, atomic_write.replacing(tmp_path / path):
        pass
    assert caught.value.reason == reason


def test_an_error_about_the_temporary_file_names_the_file_to_write(tmp_path):
    def refuse(where):
        with atomic_write.replacing(tmp_path / "lungs.png") as fresh:
            raise UsageError("a picture is one plane", where=fresh if where is None else where)

    for where, named in ((None, tmp_path / "lungs.png"), ("another file", "another file")):
        with pytest.raises(UsageError) as caught:
            refuse(where)
        assert caught.value.where == str(named)


def test_a_folder_replaces_the_old_one_complete_or_not_at_all(tmp_path):
    place = tmp_path / "package"
    place.mkdir()
    (place / "old").write_text("old")

    def fail(error):
        with atomic_write.replacing_folder(place) as part:
            (part / "new").write_text("half")
            raise error

    for error, seen in ((ValueError("no"), ValueError), (OSError(errno.ENOSPC, "full"), ResourceError)):
        with pytest.raises(seen):
            fail(error)
        assert [path.name for path in tmp_path.rglob("*")] == ["package", "old"]
    with pytest.raises(ResourceError, match="not empty"), atomic_write.replacing_folder(place):
        pass
    assert [path.name for path in tmp_path.rglob("*")] == ["package", "old"]
    with atomic_write.replacing_folder(place, remove=True) as part:
        (part / "new").write_text("new")
    assert [path.name for path in tmp_path.rglob("*")] == ["package", "new"]
