"""An imported model from its training folder to a batch that is killed and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from support.batches import medseg as command
from support.commands import invoke
from support.foreign_models import training_folder
from support.processes import environment

import medseg
from medseg.images.grid import Grid
from medseg.images.volume import Volume

CASES = 4


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of five folds, and a folder of scans."""
    place = tmp_path_factory.mktemp("world")
    invoke("import-model", training_folder(place, folds=5), "-o", place / "model.safetensors")
    (place / "scans").mkdir()
    for number in range(CASES):
        values = np.random.default_rng(number).integers(-1000, 300, (20, 24, 14 + number))
        grid = Grid.from_spacing(values.shape, (1.5, 2.0, 5.0))
        medseg.write(Volume(values.astype(np.int16), grid), place / "scans" / f"c{number}.nii.gz")
    return place


def batch(world: Path, out: Path, *more: object) -> list[str]:
    model = world / "model.safetensors"
    return command("batch", world / "scans", "-o", out, "--model", model, "--probabilities", "--json", *more)


def contents(out: Path) -> dict[str, bytes]:
    """All masks and probability maps."""
    paths = [path for kind in ("masks", "probabilities") for path in (out / kind).rglob("*.nii.gz")]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


def test_a_killed_batch_of_five_folds_ends_with_the_bytes_of_one_or_two_workers(world, tmp_path):
    with subprocess.Popen(
        batch(world, tmp_path / "killed", "--workers", 1),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["event"] == "case":
                os.killpg(process.pid, signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    ends = {}
    for name, more in (("killed", ("--resume", "--workers", 1)), ("two", ("--workers", 2))):
        made = subprocess.run(
            batch(world, tmp_path / name, *more), capture_output=True, env=environment(), check=True
        )
        ends[name] = json.loads(made.stdout.splitlines()[-1])
    # The case that was reported before the kill is not done again.
    assert ends["killed"]["skipped"] >= 1
    assert ends["killed"]["done"] + ends["killed"]["skipped"] == ends["two"]["done"] == CASES
    resumed = contents(tmp_path / "killed")
    assert len(resumed) == CASES * 3  # a mask, and a map of each of two labels
    assert resumed == contents(tmp_path / "two")
    mask = tmp_path / "alone.nii.gz"
    invoke("segment", world / "scans" / "c0.nii.gz", mask, "--model", world / "model.safetensors")
    assert mask.read_bytes() == resumed["masks/c0.nii.gz"]
    ranked = medseg.rank_cases(tmp_path / "two")
    assert sorted(each.case for each in ranked) == [f"c{number}" for number in range(CASES)]
    assert not any(each.note for each in ranked)
