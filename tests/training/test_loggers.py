from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from support.processes import PATIENCE
from support.worlds import phantoms, tiny
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medseg.errors import ResourceError, UsageError
from medseg.training.loggers import NO_REPORTS, REGISTRY, check_trackers, log_pictures, loggers
from medseg.training.trainer import Hardware, train


@pytest.fixture(autouse=True)
def no_reports(monkeypatch):
    """As `medseg train` and careful users set it."""
    for name, value in NO_REPORTS.values():
        monkeypatch.setenv(name, value)


PICTURE = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


def test_tensorboard_has_the_curves_and_pictures_of_a_training(tmp_path):
    train(tiny(), phantoms(tmp_path, "train", "val"), tmp_path / "run", hardware=Hardware(workers=0))
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert {"train_loss", "val_loss", "val_dice", "val_dice_left_lung"} <= set(events.Tags()["scalars"])
    assert len(events.Scalars("val_dice")) == 2
    (first, _) = events.Images("validation/case_1")
    assert first.width >= 200


ASKED = """
import os, socket, sys, threading, time
from pathlib import Path
server = socket.create_server(("127.0.0.1", 0))
asked = []
def listen():
    while True:
        caller, _ = server.accept()
        asked.append(caller.recv(2000).split(b"\\r")[0])
        caller.close()
threading.Thread(target=listen, daemon=True).start()
for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
    os.environ[name] = f"http://127.0.0.1:{server.getsockname()[1]}"
from medseg.recipe import Recipe
from medseg.training.loggers import loggers
_, *made = loggers(sys.argv[2:], Path(sys.argv[1]), Recipe.read("phantom_lungs"))
for each in made:
    each.log_metrics({"train_loss": 0.5}, step=1)
    each.finalize("success")
time.sleep(1)
print("asked:", asked)
"""


@pytest.mark.slow
def test_trackers_contact_no_server(tmp_path):
    """A proxy writes down every name requested, in a process that does not know it is a test."""
    names = [name for name in ("wandb", "mlflow") if find_spec(name)] or pytest.skip("no tracker installed")
    telling = ("PYTEST", "CI", "WANDB_ERROR_REPORTING", "MLFLOW_DISABLE_TELEMETRY")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(telling)}
    environment |= dict(NO_REPORTS[name] for name in names)  # as `medseg train` sets it
    child = subprocess.run(
        [sys.executable, "-c", ASKED, str(tmp_path), *names],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert child.stdout.splitlines()[-1:] == ["asked: []"], child.stdout + child.stderr


def test_wandb_keeps_a_run_offline(tmp_path):
    wandb = pytest.importorskip("wandb")
    made = loggers(["wandb"], tmp_path, tiny())
    made[1].log_metrics({"train_loss": 0.5}, step=1)
    log_pictures(made, {"validation/a": PICTURE}, 1)
    made[1].experiment.finish()
    wandb.teardown()  # its other process writes the file, and has done so when it has ended
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    assert list(run.glob("run-*.wandb"))
    held = next(iter(run.glob("run-*.wandb"))).read_bytes()
    assert b"train_loss" in held
    assert b"foreground_fraction" in held  # the recipe
    assert list(run.glob("files/media/images/**/*.png"))


def test_mlflow_writes_into_the_folder(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    made = loggers(["mlflow"], tmp_path, tiny())
    made[1].log_metrics({"train_loss": 0.5}, step=1)
    log_pictures(made, {"validation/a": PICTURE}, 1)
    made[1].finalize("success")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (experiment,) = (e for e in client.search_experiments() if e.name == "tiny_3d")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics == {"train_loss": 0.5}
    assert run.data.params["train.batch_size"] == "2"
    assert list((tmp_path / "mlflow").rglob("*.png"))


def test_unknown_or_missing_trackers_are_named(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="tensorboard, wandb, mlflow"):
        loggers(["neptune"], tmp_path, tiny())
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ResourceError, match=r"pip install 'medseg\[wandb\]'") as refused:
        loggers(["wandb"], tmp_path, tiny())
    assert refused.value.reason == "missing-extra"


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_usage_reports_of_trackers_need_the_users_permission(name, tmp_path, monkeypatch):
    variable, value = NO_REPORTS[name]
    monkeypatch.delenv(variable)
    with pytest.raises(UsageError, match=f"{variable} is set") as refused:
        check_trackers([name])
    assert refused.value.reason == "tracker-reports"
    assert f"{variable}={value}" in str(refused.value)
    assert variable not in os.environ


def test_trackers_are_made_once(tmp_path):
    assert len(loggers(["tensorboard", "tensorboard"], tmp_path, tiny())) == 1
    assert list(REGISTRY) == ["tensorboard", "wandb", "mlflow"]
