import os
from pathlib import Path

import pytest

from medseg.errors import InputRefused
from medseg.system import memory_budget

GIB = 1 << 30


def system(root, **files):
    """A machine with 8 GiB free, and the contents of some other files."""
    for name, text in {"proc/meminfo": f"MemFree: 1 kB\nMemAvailable: {8 << 20} kB\n", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_the_description_of_the_machine(tmp_path):
    assert memory_budget.available_bytes(system(tmp_path)) == 8 * GIB


def test_a_control_group_of_version_2_and_those_above_it(tmp_path):
    job = "sys/fs/cgroup/slurm/job"
    root = system(
        tmp_path,
        **{
            "proc/self/cgroup": "0::/slurm/job\n",
            f"{job}/memory.max": "max\n",
            "sys/fs/cgroup/slurm/memory.max": f"{4 * GIB}\n",
            "sys/fs/cgroup/slurm/memory.current": f"{3 * GIB}\n",
            # Cache that the kernel drops when memory is short counts as free.
            "sys/fs/cgroup/slurm/memory.stat": f"anon 5\ninactive_file {GIB}\n",
        },
    )
    assert memory_budget.available_bytes(root) == 2 * GIB
    system(tmp_path, **{f"{job}/memory.max": f"{GIB}\n", f"{job}/memory.current": "1024\n"})
    assert memory_budget.available_bytes(root) == GIB - 1024


def test_a_control_group_of_version_1(tmp_path):
    folder = "sys/fs/cgroup/memory/docker/x"
    root = system(
        tmp_path,
        **{
            "proc/self/cgroup": "5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n",
            f"{folder}/memory.limit_in_bytes": f"{2 * GIB}\n",
            f"{folder}/memory.usage_in_bytes": f"{GIB}\n",
            f"{folder}/memory.stat": "total_inactive_file 100\n",
        },
    )
    assert memory_budget.available_bytes(root) == GIB + 100


def test_more_in_use_than_allowed_leaves_nothing(tmp_path):
    root = system(
        tmp_path,
        **{
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": "10\n",
            "sys/fs/cgroup/memory.current": "30\n",
        },
    )
    assert memory_budget.available_bytes(root) == 0


def test_the_limit_of_the_process_itself(tmp_path, monkeypatch):
    resource = pytest.importorskip("resource")
    root = system(tmp_path, **{"proc/self/statm": "1000 500 1 1 1 1 1\n"})
    monkeypatch.setattr(resource, "getrlimit", lambda _: (GIB, GIB))
    assert memory_budget.available_bytes(root) == GIB - 1000 * os.sysconf("SC_PAGE_SIZE")


def test_systems_without_proc(tmp_path, monkeypatch):
    assert memory_budget.available_bytes(tmp_path) > 0  # no /proc: all of the machine's memory

    def unknown(_):
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(memory_budget.os, "sysconf", unknown)
    assert memory_budget.available_bytes(tmp_path) is None
    monkeypatch.setattr(memory_budget, "available_bytes", lambda: None)
    memory_budget.check(1 << 80, "voxels")


def test_this_machine_has_a_plausible_amount():
    free = memory_budget.available_bytes()
    assert free is not None
    assert 10 << 20 < free < 1 << 46


@pytest.mark.parametrize(("needed", "size"), [(3 * GIB, "3 GiB"), (1 << 90, "2^90")])
def test_too_large_scans_are_refused_with_both_sizes(monkeypatch, needed, size):
    monkeypatch.setattr(memory_budget, "available_bytes", lambda: 2 * GIB)
    memory_budget.check(2 * GIB, "voxels", where=Path("a.nii"))
    with pytest.raises(InputRefused) as caught:
        memory_budget.check(needed, "9 x 9 x 9 voxels", where=Path("a.nii"))
    assert caught.value.reason == "too-large"
    assert caught.value.where == "a.nii"
    for part in (size, "2 GiB", "9 x 9 x 9 voxels", "memory"):
        assert part in caught.value.problem
