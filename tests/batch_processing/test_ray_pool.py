"""Batches on a Ray cluster."""

import os
import subprocess
import sys

import pandas as pd
import psutil
import pytest
from support.batches import SPOILED, config_for, medseg, run, table

from medseg.batch_processing.case_discovery import items


@pytest.mark.slow
def test_a_ray_cluster_gives_the_same_masks(scans, tmp_path):
    """Even if one of its two workers is killed."""
    pytest.importorskip("ray")
    from medseg.batch_processing.ray_pool import RayPool

    here, there, killed = tmp_path / "here", tmp_path / "there", []
    found = items(scans / "cases.csv")
    (scans / "5.nii.gz").write_bytes(b"nothing")
    run(found, config_for(here))

    def show(event: dict[str, object]) -> None:
        if event["event"] == "case" and not killed:
            children = psutil.Process().children(recursive=True)
            actors = [child for child in children if child.cmdline()[:1] == ["ray::Actor"]]
            killed.extend(actors[:1])
            for actor in killed:
                actor.kill()

    ended = run(
        found,
        config_for(there),
        start=lambda config, cases: RayPool(config, cases=cases, address=None, workers=2, gpus=0),
        show=show,
    )
    assert killed
    assert (ended.done, ended.failed) == (5, 1)
    for number in range(5):
        mask = f"masks/c{number}.nii.gz"
        assert (here / mask).read_bytes() == (there / mask).read_bytes()
    columns = [name for name in table(here).columns if not name.startswith("seconds")]
    pd.testing.assert_frame_equal(table(here)[columns], table(there)[columns])


def test_a_missing_cluster_is_refused(scans, tmp_path):
    pytest.importorskip("ray")
    words = ("--model", "threshold", "--engine", "ray", "--address", "nonsense://nowhere")
    command = medseg("batch", scans, "-o", tmp_path / "out", *words)
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 5
    assert "no Ray cluster answers" in ended.stderr


@pytest.mark.slow
def test_ray_workers_have_the_limits_of_local_ones(scans, tmp_path, spoiled, monkeypatch):
    """One case hangs, and another takes more memory than its worker has."""
    pytest.importorskip("ray")
    # Workers of Ray take their modules from the environment in which the cluster was started.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(spoiled.parent), *sys.path]))
    from medseg.batch_processing.ray_pool import RayPool

    greedy = 'if volume.source.path.name.startswith("4"): bytearray(8 << 30)'
    spoiled.write_text(SPOILED.format(what=f"time.sleep(10_000)\n    {greedy}"))
    limits = {"memory_bytes": 4 << 30, "case_seconds": 5.0}
    out = tmp_path / "out"
    ended = run(
        items(scans / "cases.csv"),
        config_for(out),
        start=lambda config, cases: RayPool(config, cases=cases, address=None, workers=2, gpus=0, **limits),
    )
    assert (ended.done, ended.failed) == (4, 2)
    assert table(out)["reason"].dropna().to_dict() == {"c3": "case-time", "c4": "memory"}


@pytest.mark.slow
def test_a_case_that_lacks_memory_is_tried_again_alone(scans, tmp_path, spoiled, monkeypatch):
    """Two workers have 2 GiB each, and one alone has 4; the case takes 3."""
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(spoiled.parent), *sys.path]))
    from medseg.batch_processing.ray_pool import RayPool

    spoiled.write_text(SPOILED.format(what="bytearray(3 << 30)"))
    ended = run(
        items(scans / "cases.csv")[2:5],
        config_for(tmp_path / "out"),
        start=lambda config, cases: RayPool(
            config, cases=cases, address=None, workers=2, gpus=0, memory_bytes=4 << 30
        ),
    )
    assert (ended.done, ended.failed) == (3, 0)
