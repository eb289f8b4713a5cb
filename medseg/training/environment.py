"""What a training ran on: installed packages, the machine, and the state of git repositories."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

# Packages whose version may change the result.
_PACKAGES = (
    *("medseg", "torch", "monai", "lightning", "numpy", "scipy"),
    *("nibabel", "SimpleITK", "pydicom", "python-gdcm", "pylibjpeg-openjpeg"),
)
_GIT_SECONDS = 10


def installed_versions() -> dict[str, str | None]:
    """Installed version by package; None for a package that is not installed."""
    versions: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return versions


def machine() -> dict[str, object]:
    """Python, system, processor and GPUs, without the name of the machine."""
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_available() else ()
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "gpus": [torch.cuda.get_device_name(number) for number in gpus],
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def git_state(folder: Path) -> dict[str, object] | None:
    """Commit and uncommitted changes of the repository around ``folder``; None if there is none."""
    commit = _git_output(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _git_output(folder, "diff", "HEAD") or ""
    return {
        "commit": commit,
        "branch": _git_output(folder, "rev-parse", "--abbrev-ref", "HEAD"),
        "changed": bool(_git_output(folder, "status", "--porcelain", "--untracked-files=no")),
        "changes_sha256": hashlib.sha256(changes.encode()).hexdigest() if changes else None,
    }


def _git_output(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True, text=True, errors="replace", timeout=_GIT_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):  # no git here
        return None
    return done.stdout.strip() if done.returncode == 0 else None
