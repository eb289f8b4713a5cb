"""Fine-tuning on submitted labels, in a process of its own."""

import json
import time

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("python_multipart")

from support.served import form, in_process, scans

import medseg
from medseg import Mask
from medseg.phantom.thorax import Thorax


def submit_truth(client, folder, name: str, tmp_path) -> None:
    truth = Thorax().truth(medseg.read(folder / f"{name}.nii.gz").grid)
    lungs = np.where(truth.array <= 2, truth.array, 0).astype(np.uint16)
    path = tmp_path / "truth.nii.gz"
    medseg.write(Mask(lungs, truth.grid, ()), path)
    rows = [{"name": "right_lung", "idx": 1}, {"name": "left_lung", "idx": 2}]
    body, headers = form(
        {"params": json.dumps({"label_info": rows})}, {"label": ("t.nii.gz", path.read_bytes())}
    )
    response = client.put(f"/datastore/label?image={name}", content=body, headers=headers)
    assert response.status_code == 200, response.text


def ended(client, patience: float = 900.0) -> dict:
    start = time.monotonic()
    while (status := client.get("/train/").json())["status"] == "RUNNING":
        assert time.monotonic() - start < patience, status
        time.sleep(0.5)
    return status


@pytest.mark.slow
def test_a_training_runs_is_stopped_and_its_model_is_served(tmp_path):
    folder = scans(tmp_path / "data", "a", "b")
    with in_process(tmp_path / "t", data=folder, models=("phantom_lungs",), device="cpu") as (
        client,
        _,
    ):
        assert list(client.get("/info/").json()["trainers"]) == ["phantom_lungs"]
        for name in ("a", "b"):
            submit_truth(client, folder, name, tmp_path)
        started = client.post("/train/phantom_lungs", json={"max_epochs": 500}).json()
        assert started["status"] == "RUNNING"
        assert client.get("/train/?check_if_running=true").status_code == 200
        assert client.post("/train/phantom_lungs", json={}).json()["reason"] == "training-runs"
        assert client.delete("/train/").json()["status"] == "STOPPED"
        assert client.get("/train/?check_if_running=true").status_code == 404
        assert client.post("/train/", json={"phantom_lungs": {"max_epochs": 1}}).status_code == 200
        status = ended(client)
        assert status["status"] == "DONE", status
        assert status["progress"]["epoch"] == 1
        assert not any(str(folder) in line for line in status["details"])
        info = client.get("/info/").json()
        assert list(info["models"]) == ["phantom_lungs", "phantom_lungs-2"]
        assert info["train_stats"]["phantom_lungs"]["epoch"] == 1
        assert client.post("/infer/phantom_lungs-2?image=a&output=json").status_code == 200


@pytest.mark.parametrize("model", ["threshold", "lung_ct_context"])
def test_models_that_cannot_be_trained_are_refused(tmp_path, model):
    folder = scans(tmp_path / "data", "a")
    with in_process(tmp_path / "t", data=folder, models=(model,), device="cpu") as (client, _):
        submit_truth(client, folder, "a", tmp_path)
        assert client.get("/info/").json()["trainers"] == {}
        response = client.post(f"/train/{model}", json={})
        assert (response.status_code, response.json()["reason"]) == (400, "not-trainable")
