"""Trainings inside allocations of SLURM, with and without `srun`."""

from __future__ import annotations

import pytest
from support.worlds import phantoms, tiny

from medseg.errors import UsageError
from medseg.training.hardware import Hardware, check_slurm
from medseg.training.trainer import train


@pytest.mark.parametrize("variables", [{}, {"SLURM_NTASKS_PER_NODE": "4"}])
@pytest.mark.filterwarnings("ignore:.*no case has split val:medseg.errors.InputWarning")
def test_one_process_trains_in_an_allocation_of_several_tasks(tmp_path, monkeypatch, variables):
    facts = {
        "NTASKS": "4",
        "JOB_NAME": "train",
        "JOB_ID": "1",
        "PROCID": "0",
        "LOCALID": "0",
        "NODELIST": "a",
    }
    for name, value in ({f"SLURM_{key}": value for key, value in facts.items()} | variables).items():
        monkeypatch.setenv(name, value)
    recipe = tiny(train={"epochs": 1, "steps_per_epoch": 1})
    model = train(recipe, phantoms(tmp_path, "train"), tmp_path / "run", hardware=Hardware(workers=0))
    assert model.provenance["epoch"] == 1


@pytest.mark.parametrize(
    ("tasks", "srun", "hardware", "message"),
    [
        ("4", True, Hardware("cpu"), r"started 4 task\(s\), but the training has 1 process"),
        ("2", True, Hardware("cpu", devices=2, nodes=2), r"started 2 task\(s\), but the training has 4"),
        ("4", False, Hardware("cpu", devices=2, nodes=2), "2 machines need `srun`"),
        ("4", True, Hardware("cpu", devices=2, nodes=2), None),
        ("1", True, Hardware("cpu"), None),
        ("8", False, Hardware("cpu", devices=2), None),
    ],
)
def test_tasks_that_are_not_the_processes_are_refused(monkeypatch, tasks, srun, hardware, message):
    monkeypatch.setenv("SLURM_NTASKS", tasks)
    if srun:
        monkeypatch.setenv("SLURM_STEP_ID", "0")
    if message is None:
        check_slurm(hardware)
        return
    with pytest.raises(UsageError, match=message) as caught:
        check_slurm(hardware)
    assert caught.value.reason == "slurm-tasks"
    assert f"--ntasks={hardware.processes}" in caught.value.remedy
