"""The real client of MONAI Label against a real server.

`make client` installs it without its server's sixty dependencies in an environment of its own.
"""

import csv
import hashlib
import json
import os
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("python_multipart")

from support.served import scans, started

import medseg
from medseg import Mask

CLIENT = """
import json, sys
from monailabel.client import MONAILabelClient
url, folder, sent, model = sys.argv[1:]
client = MONAILabelClient(url, tmpdir=folder, client_id="reader")
said = {"login": client.auth_enabled(), "info": client.info(), "store": client.datastore()}
said["by_id"] = client.infer(model, "a", {})
said["by_upload"] = client.infer(model, "", {}, file=sent)
session = client.create_session(sent)["session_id"]
said["session"] = client.get_session(session)
said["by_session"] = client.infer(model, "", {}, session_id=session)
client.remove_session(session)
said["next"] = client.next_sample("least_certain", {})
said["sent"] = client.upload_image(sent, "mine")
rows = [{"name": name, "idx": idx} for idx, name in enumerate(said["by_id"][1]["label_names"], start=1)]
said["saved"] = client.save_label("a", said["by_id"][0], params={"label_info": rows})
said["label"] = client.download_label("a", "final")
said["training"] = client.train_status(check_if_running=True)
said["after"] = client.info()
try:
    client.infer(model, "../../etc/passwd", {})
except Exception as error:
    said["refused"] = error.msg
if said["info"]["trainers"]:
    said["train"] = client.train_start(model, {"max_epochs": 500})
    said["training"] = client.train_status(check_if_running=True)
    said["stopped"] = client.train_stop()
print(json.dumps(said))
"""


@pytest.fixture(scope="session")
def client_python() -> str:
    ready = Path(__file__).parents[2] / ".venv-client" / ".ready"
    if not ready.exists():
        pytest.skip("the client of MONAI Label is not installed: make client")
    return str(ready.parent / "bin" / "python")


def used(python: str, url: str, tmp_path: Path, model: str) -> dict:
    folder = tmp_path / "client"
    folder.mkdir()
    arguments = [url, str(folder), str(tmp_path / "sent" / "other.nii.gz"), model]
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([python, "-c", CLIENT, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_the_client_lists_segments_submits_asks_for_the_next_case_and_trains(client_python, tmp_path):
    model, before = "phantom_lungs", datetime.now(UTC).replace(microsecond=0)
    data = scans(tmp_path / "data", "a", "b")
    (scans(tmp_path / "sent", "none", "other") / "none.nii.gz").unlink()
    other = tmp_path / "sent" / "other.nii.gz"
    with started(tmp_path / "log.txt", data, "--model", model, "--device", "cpu") as (url, _):
        said = used(client_python, url, tmp_path, model)
    assert said["login"] is False
    assert list(said["info"]["models"]) == [model]
    assert list(said["store"]["objects"]) == ["a", "b"]
    segmenter = medseg.load_segmenter(model, device="cpu")
    labels, masks = segmenter.labels, {}
    for of, scan in (("by_id", data / "a.nii.gz"), ("by_upload", other), ("by_session", other)):
        path, params = said[of]
        expected = masks.setdefault(scan, segmenter(medseg.read(scan)))
        assert params["label_names"] == [label.name for label in labels] == ["right_lung", "left_lung"]
        found = medseg.read_mask(path, labels)
        assert np.array_equal(found.array, expected.array)
        assert found.grid.same_as(medseg.read(scan).grid)
    assert said["next"]["id"] in ("a", "b")
    assert said["sent"] == {"image": "mine"}
    assert said["saved"]["version"] == 1
    assert isinstance(medseg.read_mask(said["label"], labels), Mask)
    assert said["after"]["datastore"]["completed"] == 1
    assert "no-such-image" in said["refused"]
    (case,) = medseg.Manifest.read(data / "medseg-serve" / "manifest.csv").cases
    (row,) = csv.DictReader((data / "medseg-serve" / "submissions.csv").open())
    assert (case.id, case.images, case.label) == (
        row["image"], (data / "a.nii.gz",), data / "medseg-serve" / row["label"]
    )  # fmt: skip
    assert row["reader"] == "reader"
    assert before <= datetime.fromisoformat(row["date"]) <= datetime.now(UTC)
    assert row["original_sha256"] == segmenter.digest
    assert row["submitted_sha256"] == sha256(said["by_id"][0])
    assert row["scan_sha256"] == sha256(data / "a.nii.gz")
    assert "Traceback" not in (tmp_path / "log.txt").read_text()
    assert said["train"]["status"] == "RUNNING"
    assert said["training"] is True
    assert said["stopped"]["status"] == "STOPPED"


def test_the_python_of_the_guide_runs(client_python, tmp_path):
    """With a quicker model, and its labels as the correction."""
    guide = Path(__file__).parents[2] / "docs" / "guides" / "serve.md"
    (code,) = re.findall(r"```python\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)
    data = scans(tmp_path / "data", "case_1")
    medseg.segment_file(data / "case_1.nii.gz", tmp_path / "corrected.nii.gz", model="threshold")
    with started(tmp_path / "log.txt", data, "--model", "threshold") as (url, _):
        here = code.replace("http://127.0.0.1:8000", url).replace("lung_ct_context", "threshold")
        environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [client_python, "-c", here], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr
    (row,) = csv.DictReader((data / "medseg-serve" / "submissions.csv").open())
    assert (row["reader"], row["labels"]) == ("me", "right_lung=1;left_lung=2")


def sha256(path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_a_token_is_the_first_part_of_the_address(client_python, tmp_path):
    data = scans(tmp_path / "data", "a", "b")
    scans(tmp_path / "sent", "other")
    token = "a-token-of-24-characters"
    log = tmp_path / "log.txt"
    with started(log, data, "--model", "threshold", MEDSEG_SERVE_TOKEN=token) as (url, _):
        assert url.endswith(token)
        said = used(client_python, url, tmp_path, "threshold")
    assert said["login"] is False
    assert said["after"]["datastore"]["completed"] == 1
