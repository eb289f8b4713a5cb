"""The prepared benchmark for a bare machine runs, here with the CPU as the device and a tiny scan."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd

import medseg

RUN = Path(__file__).parents[2] / "benchmarks" / "speed" / "run.py"


def test_the_benchmark_makes_its_scan_and_model_and_needs_no_simpleitk(tmp_path):
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "SimpleITK.py").write_text("raise ImportError('SimpleITK is not here')")
    environment = os.environ | {"PYTHONPATH": str(blocked), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment["PYTHONPATH"] += os.pathsep + str(RUN.parents[2])
    words = [
        "--device",
        "cpu",
        "--side",
        "48",
        "--slices",
        "24",
        "--rounds",
        "1",
        "--peers",
        "--engines",
        "torch",
    ]
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, RUN, *words, "--out", out],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = pd.read_csv(out / "rounds.csv")
    assert rows["name"].tolist() == ["medseg torch"] * 2
    assert "network" in rows["stages"][1]
    assert "medseg torch         wall_s   1.00 1.00 1.00" in done.stdout
    mask = medseg.read(out / "medseg_torch.nii.gz")
    assert mask.grid.shape == (48, 48, 24)
