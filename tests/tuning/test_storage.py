"""Storages of studies: which are known, and that no message has a password."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from medseg.errors import ResourceError, UsageError
from medseg.tuning.storage import check_installed, described, open_study


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@db:5432/studies", "postgresql://db:5432/studies"),
        ("mysql+pymysql://me:se/cr@et?x@db/studies?password=secret", "mysql+pymysql://db/studies"),
        ("sqlite:////tmp/a.db", "sqlite:////tmp/a.db"),
        ("runs/a.sqlite", "runs/a.sqlite"),
    ],
)
def test_a_storage_is_shown_without_credentials(url: str, shown: str) -> None:
    assert described(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:hunter2@127.0.0.1:1/studies",  # no driver here, or nobody answers
        "nosuchdatabase://me:hunter2@127.0.0.1/studies?password=hunter2",
        "postgresql://me:hunter2@[bad/studies",
    ],
)
def test_no_message_has_the_password(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_study(url, "s")
    assert caught.value.reason == "tune-storage"
    assert "hunter2" not in str(caught.value) + repr(caught.value.__cause__)
    assert caught.value.__suppress_context__


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends in '\.txt'") as caught:
        open_study(tmp_path / "study.txt", "s")
    assert caught.value.reason == "tune-storage"


def test_without_optuna_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ResourceError, match=r"pip install 'medseg\[tune\]'") as caught:
        check_installed()
    assert caught.value.reason == "missing-extra"
