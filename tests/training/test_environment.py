from __future__ import annotations

import subprocess

from medseg.training import environment


def test_the_state_of_a_repository(tmp_path):
    assert environment.git_state(tmp_path) is None

    def git(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    git("init", "-b", "work")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "first")
    state = environment.git_state(tmp_path)
    assert (state["branch"], state["changed"], state["changes_sha256"]) == ("work", False, None)
    (tmp_path / "a").write_text("2")
    assert environment.git_state(tmp_path)["changed"]
    assert len(environment.git_state(tmp_path)["changes_sha256"]) == 64


def test_machines_without_git_or_proc_are_supported(tmp_path, monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError("git")

    monkeypatch.setattr("subprocess.run", missing)
    assert environment.git_state(tmp_path) is None
    monkeypatch.setattr("pathlib.Path.read_text", missing)
    assert isinstance(environment._processor(), str)


def test_missing_packages_have_no_version(monkeypatch):
    monkeypatch.setattr(environment, "_PACKAGES", ("numpy", "no-such-package"))
    assert environment.installed_versions()["no-such-package"] is None
