"""What must hold after a fault: files are whole, and outputs are those of a run without it."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

PASSING = re.compile(r"^\.(medseg-|scratch|cache|damaged)")
"""Names of files that are only there while a command runs."""

_TRACES = (
    "Traceback (most recent",
    "Exception ignored",
    "Fatal Python error",
    "Error in atexit",
    "Exception in thread",
)
_BYTES = (".nii.gz", ".nrrd", ".mha", "summary.csv", "cases.csv", "labels.json")  # fmt: skip


def traces(text: str) -> list[str]:
    """The marks of an error that was not caught."""
    return [mark for mark in _TRACES if mark in text]


def files(folder: Path) -> Iterator[Path]:
    """Visible files of a folder, in order."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of all files of a folder, hidden ones too."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def passing(folder: Path) -> list[str]:
    """Files and folders that should be gone when a command has ended."""
    found = [path for path in folder.rglob("*") if PASSING.match(path.name)]
    # A batch that could not record a mask leaves its digest for the next one.
    return [path.name for path in found if [inner.name for inner in path.glob("*")] != ["intents"]]


def damaged(folder: Path, *, killed: bool) -> list[str]:
    """Visible files that are not whole, with what is wrong.

    Args:
        folder: An output folder.
        killed: Whether a line that was being added to a log may be incomplete.
    """
    found = []
    for path in files(folder):
        try:
            _read(path, killed=killed)
        except Exception as error:
            found.append(f"{path.relative_to(folder)}: {type(error).__name__}: {error}"[:200])
    return found


def _read(path: Path, *, killed: bool) -> None:
    name, content = path.name, path.read_bytes()
    if name.endswith((".nii.gz", ".nrrd", ".mha")):
        import medseg

        medseg.read(path)
    elif name.endswith(".json"):
        json.loads(content)
    elif name.endswith(".jsonl"):
        lines = content.split(b"\n")
        if killed:
            lines = lines[:-1]
        for line in filter(None, lines):
            json.loads(line)
    elif name.endswith(".csv"):
        rows = list(csv.reader(content.decode().splitlines()))
        assert content.endswith(b"\n"), "no line break at the end"
        assert len({len(row) for row in rows}) == 1, "rows of different lengths"
    elif name.endswith(".png"):
        from PIL import Image

        with Image.open(path) as picture:
            picture.load()
    elif name.endswith(".html"):
        assert content.rstrip().endswith(b"</html>"), "no </html> at the end"
    elif name == "recipe.yaml":
        from medseg.recipe import Recipe

        Recipe.read(path)
    elif name.endswith(".safetensors"):
        tensors(path)
    elif name.endswith(".ckpt"):
        import torch

        torch.load(path, weights_only=True, map_location="cpu")


def tensors(path: Path) -> str:
    """Digest of the weights in a model file."""
    from safetensors.numpy import load_file

    known = hashlib.sha256()
    for name, array in sorted(load_file(path).items()):
        known.update(name.encode() + array.tobytes())
    return known.hexdigest()


def differences(intact: Path, folder: Path) -> list[str]:
    """Outputs that are missing, or whose content differs from that of a run without a fault."""
    found = []
    for path in files(intact):
        name = path.relative_to(intact)
        if "cache" in name.parts or "checkpoints" in name.parts or "tensorboard" in name.parts:
            continue
        other = folder / name
        if not other.is_file():
            found.append(f"{name} is missing")
        elif path.name == "evaluation.csv" and _scores(path) != _scores(other):
            found.append(f"{name} has other scores")
        elif path.name.endswith(_BYTES) and path.read_bytes() != other.read_bytes():
            found.append(f"{name} differs")
        elif path.suffix == ".safetensors" and tensors(path) != tensors(other):
            found.append(f"{name} has other weights")
        elif path.name == "results.csv" and _volumes(path) != _volumes(other):
            found.append(f"{name} has other rows")
    return found


def _scores(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def _volumes(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        keep = ("case", "status", "mask")
        return [
            {k: v for k, v in row.items() if k in keep or k.endswith("_ml")} for row in csv.DictReader(file)
        ]
