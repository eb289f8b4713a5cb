"""The pages as the module of 3D Slicer asks for them: masks, scans, labels, the next case, sessions."""

import csv
import json
import urllib.parse
from pathlib import Path

import nibabel
import numpy as np
import pytest

pytest.importorskip("starlette")
pytest.importorskip("python_multipart")

import SimpleITK as sitk
from support.served import answered, form, in_process, scans

import medseg
from medseg import Label, Mask, Volume
from medseg.serving.loaded_models import numbered

LABELS = ["right_lung", "left_lung"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return scans(tmp_path / "data", "a", "b", "c")


@pytest.fixture
def served(tmp_path, folder):
    with in_process(tmp_path / "temporary", data=folder) as pair:
        yield pair


def mask_in(response, tmp_path: Path) -> tuple[dict, Mask]:
    params, name, content = answered(response.headers["content-type"], response.content)
    path = tmp_path / name
    path.write_bytes(content)
    labels = [
        Label(name=text, values=(number,)) for number, text in enumerate(params["label_names"], start=1)
    ]
    return params, medseg.read_mask(path, labels)


def submit(client, image: str, label: bytes, *, tag: str = "", params: object = None, name: str = "x.nii.gz"):
    rows = [{"name": text, "idx": number} for number, text in enumerate(LABELS, start=1)]
    given = {"label_info": rows, "client_id": "reader-7"} if params is None else params
    body, headers = form({"params": json.dumps(given)}, {"label": (name, label)})
    place = f"/datastore/label?image={urllib.parse.quote_plus(image)}" + (f"&tag={tag}" if tag else "")
    return client.put(place, content=body, headers=headers)


def test_info_has_what_the_module_shows(served):
    client, _ = served
    info = client.get("/info/").json()
    assert "config" not in info
    assert info["labels"] == LABELS
    assert info["models"]["threshold"]["type"] == "segmentation"
    assert info["models"]["threshold"]["labels"] == LABELS
    assert (info["datastore"]["total"], info["datastore"]["completed"]) == (3, 0)
    assert set(info["strategies"]) == {"least_certain", "first"}
    assert info["trainers"] == {}  # thresholds cannot be trained


def test_a_mask_by_id_is_the_one_of_segment_on_the_grid_of_the_scan(served, folder, tmp_path):
    client, _ = served
    body, headers = form({"params": json.dumps({"client_id": "x"})}, {})
    response = client.post("/infer/threshold?image=b", content=body, headers=headers)
    params, mask = mask_in(response, tmp_path)
    expected = medseg.segment(folder / "b.nii.gz", model="threshold")
    assert params["label_names"] == LABELS
    assert np.array_equal(mask.array, expected.array)
    assert np.array_equal(mask.affine, nibabel.load(folder / "b.nii.gz").affine)


def test_a_mask_of_an_uploaded_scan_and_nothing_is_left(served, folder, tmp_path):
    client, service = served
    scan = (folder / "c.nii.gz").read_bytes()
    body, headers = form({"params": "{}"}, {"file": ("/home/me/Jane Doe.nii.gz", scan)})
    _, mask = mask_in(client.post("/infer/threshold?image=", content=body, headers=headers), tmp_path)
    expected = medseg.segment(folder / "c.nii.gz", model="threshold")
    assert np.array_equal(mask.array, expected.array)
    assert list(service.temporary.iterdir()) == []


def test_ohif_gets_uncompressed_nrrd_of_8_bits(served, folder, tmp_path):
    client, _ = served
    params = {"result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False}
    body, headers = form({"params": json.dumps(params)}, {})
    response = client.post("/infer/threshold?image=a&output=image", content=body, headers=headers)
    (tmp_path / "mask.nrrd").write_bytes(response.content)
    image = sitk.ReadImage(str(tmp_path / "mask.nrrd"))  # an independent reader
    scan = sitk.ReadImage(str(folder / "a.nii.gz"))
    assert b"encoding: raw" in response.content[:1000]
    assert image.GetPixelIDTypeAsString() == "8-bit unsigned integer"
    expected = medseg.segment(folder / "a.nii.gz", model="threshold").array
    assert np.array_equal(sitk.GetArrayFromImage(image).T, expected)
    for of in ("GetOrigin", "GetSpacing", "GetDirection"):
        assert np.allclose(getattr(image, of)(), getattr(scan, of)(), atol=1e-4)


def test_json_alone(served):
    client, _ = served
    params = client.post("/infer/threshold?image=a&output=json").json()
    assert params["label_names"] == LABELS
    assert params["volumes_ml"]["left_lung"] > 100


def test_values_of_a_mask_are_numbered_in_the_order_of_the_labels():
    grid = medseg.Grid((3, 1, 1), np.eye(4))
    labels = (Label(name="lung", values=(3, 7)), Label(name="lesion", values=(7,)))
    mask = Mask(np.array([0, 3, 7], np.uint16).reshape(3, 1, 1), grid, labels)
    assert numbered(mask).array.ravel().tolist() == [0, 1, 2]


def test_what_is_refused_has_a_reason_and_a_remedy(served):
    client, _ = served
    for method, place, status, reason in (
        ("POST", "/infer/nothing?image=a", 404, "model-not-found"),
        ("POST", "/infer/threshold?image=nobody", 404, "no-such-image"),
        ("POST", "/infer/threshold", 400, "params"),
        ("POST", "/infer/threshold?image=a&output=gif", 400, "params"),
        ("POST", "/infer/threshold?session_id=none", 404, "no-such-session"),
        ("POST", "/activelearning/magic", 400, "params"),
        ("GET", "/datastore/label?label=a&tag=final", 404, "not-labelled"),
        ("GET", "/train/?check_if_running=true", 404, "not-training"),
        ("POST", "/train/threshold", 400, "nothing-to-train"),
        ("GET", "/nowhere", 404, "no-such-page"),
        ("DELETE", "/datastore/", 405, "no-such-page"),
    ):
        response = client.request(method, place)
        assert (response.status_code, response.json()["reason"]) == (status, reason), place
        assert response.json()["detail"]
        assert response.json()["remedy"]


def test_a_form_that_is_none_is_refused(served):
    client, _ = served
    body, headers = form({"params": "[1]"}, {})
    assert client.post("/infer/threshold?image=a", content=body, headers=headers).json()["reason"] == "params"
    assert client.post("/infer/threshold?image=a", content=b"x").json()["reason"] == "upload-form"
    broken = client.post("/infer/threshold?image=a", content=b"-" * 99, headers=headers)
    assert broken.json()["reason"] == "upload-form"
    assert submit(client, "a", b"x", name="x.exe").json()["reason"] == "upload-format"
    body, headers = form({"params": "{}"}, {})
    assert (
        client.put("/datastore/?image=new", content=body, headers=headers).json()["reason"] == "upload-form"
    )


def test_a_scan_that_cannot_be_read_is_refused_without_the_path_of_the_upload(served):
    client, service = served
    body, headers = form({"params": "{}"}, {"file": ("x.nii.gz", b"no scan")})
    response = client.post("/infer/threshold", content=body, headers=headers)
    assert response.status_code == 422
    assert str(service.temporary) not in response.text
    assert "Traceback" not in response.text


def test_an_unexpected_error_is_an_answer_without_its_text(served, monkeypatch, capsys):
    def broken(*_):
        raise ValueError("patient Jane")

    client, _ = served
    monkeypatch.setattr("medseg.serving.inference_requests.segmented", broken)
    response = client.post("/infer/threshold?image=a")
    assert (response.status_code, response.json()["reason"]) == (500, "unexpected")
    said = capsys.readouterr().err
    assert "ValueError" in said
    assert "Jane" not in response.text + said


def test_scans_are_listed_and_downloaded(served, folder):
    client, _ = served
    objects = client.get("/datastore/?output=all").json()["objects"]
    assert list(objects) == ["a", "b", "c"]
    assert client.get("/datastore/image?image=b").content == (folder / "b.nii.gz").read_bytes()
    assert client.get("/datastore/").json()["total"] == 3


def test_submitted_labels_are_new_versions_with_their_origin(served, folder, tmp_path):
    client, service = served
    response = client.post("/infer/threshold?image=a")
    _, mask = mask_in(response, tmp_path)
    array = mask.array.copy()
    array[array == 2] = 0
    medseg.write(Mask(array, mask.grid, mask.labels), tmp_path / "corrected.nii.gz")
    corrected = (tmp_path / "corrected.nii.gz").read_bytes()
    first = submit(client, "a", corrected).json()
    second = submit(client, "a", corrected).json()
    assert (first["version"], second["version"]) == (1, 2)
    output = folder / "medseg-serve"
    rows = list(csv.DictReader((output / "submissions.csv").open()))
    assert [row["label"] for row in rows] == ["labels/a/final-v1.nii.gz", "labels/a/final-v2.nii.gz"]
    assert {row["reader"] for row in rows} == {"reader-7"}
    assert rows[0]["scan_sha256"] == medseg_digest(folder / "a.nii.gz")
    assert rows[0]["submitted_sha256"] == medseg_digest(tmp_path / "corrected.nii.gz")
    assert rows[0]["original_sha256"] == service.originals["a"]
    (case,) = medseg.Manifest.read(output / "manifest.csv").cases
    assert (case.id, case.images[0]) == ("a", folder / "a.nii.gz")
    assert case.label.name == "final-v2.nii.gz"
    kept = medseg.read_mask(case.label, medseg.load_segmenter("threshold").labels)
    assert np.array_equal(kept.array, array)
    assert np.array_equal(kept.affine, nibabel.load(folder / "a.nii.gz").affine)
    objects = client.get("/datastore/?output=all").json()["objects"]
    assert objects["a"]["labels"]["final"]["info"]["params"]["label_names"] == {
        "right_lung": 1,
        "left_lung": 2,
    }
    downloaded = client.get("/datastore/label?label=a&tag=final")
    assert downloaded.content == case.label.read_bytes()
    assert "utf-8''a.nii.gz" in downloaded.headers["content-disposition"]
    assert client.get("/info/").json()["datastore"]["completed"] == 1


def medseg_digest(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_labels_are_there_again_after_a_restart(tmp_path, folder):
    label = (folder / "b.nii.gz").read_bytes()
    scan = medseg.read(folder / "b.nii.gz")
    medseg.write(Mask(np.zeros(scan.grid.shape, np.uint16), scan.grid, ()), tmp_path / "none.nii.gz")
    label = (tmp_path / "none.nii.gz").read_bytes()
    with in_process(tmp_path / "first", data=folder) as (client, _):
        assert submit(client, "b", label).status_code == 200
        body, headers = form({}, {"file": ("x.nii.gz", (folder / "a.nii.gz").read_bytes())})
        assert client.put("/datastore/?image=sent", content=body, headers=headers).json() == {"image": "sent"}
    with in_process(tmp_path / "second", data=folder) as (client, _):
        assert client.get("/info/").json()["datastore"] == {
            "total": 4, "completed": 1, "label_tags": {"final": 1}, "train": []
        }  # fmt: skip
        assert submit(client, "b", label).json()["version"] == 2


def test_labels_that_do_not_fit_are_refused(served, folder, tmp_path):
    client, _ = served
    scan = medseg.read(folder / "a.nii.gz")
    moved = medseg.Grid(scan.grid.shape, scan.affine + np.eye(4, k=3) * 50)
    medseg.write(Volume(np.ones(scan.grid.shape, np.uint8), moved), tmp_path / "moved.nii.gz")
    medseg.write(Volume(np.full(scan.grid.shape, 5, np.uint8), scan.grid), tmp_path / "five.nii.gz")
    for name, reason in (("moved", "grid-mismatch"), ("five", "label-names")):
        response = submit(client, "a", (tmp_path / f"{name}.nii.gz").read_bytes())
        assert (response.status_code, response.json()["reason"]) == (422, reason)
    for rows in (
        [{"name": "x", "idx": 2}],
        [{"name": "x", "idx": 1}, {"name": "x", "idx": 2}],
        ["x"],
        [{"name": "a;b", "idx": 1}],
    ):
        response = submit(client, "a", b"", params={"label_info": rows})
        assert response.json()["reason"] == "params"
    assert not (folder / "medseg-serve" / "submissions.csv").exists()


def test_without_a_data_folder_labels_are_refused_and_scans_are_not_kept(tmp_path, folder):
    with in_process(tmp_path / "temporary") as (client, service):
        body, headers = form({}, {"file": ("x.nii.gz", (folder / "a.nii.gz").read_bytes())})
        assert client.put("/datastore/?image=mine", content=body, headers=headers).status_code == 200
        assert client.post("/infer/threshold?image=mine&output=json").status_code == 200
        assert submit(client, "mine", b"x").json()["reason"] == "no-data-folder"
        assert (service.temporary / "scans" / "mine.nii.gz").is_file()


def test_another_scan_of_the_same_id_is_refused_and_the_same_one_accepted(served, folder):
    client, _ = served
    for name, status in (("a", 200), ("b", 409)):
        body, headers = form({}, {"file": ("x.nii.gz", (folder / f"{name}.nii.gz").read_bytes())})
        assert client.put("/datastore/?image=a", content=body, headers=headers).status_code == status
    body, headers = form({}, {"file": ("x.nii.gz", (folder / "a.nii.gz").read_bytes())})
    assert client.put("/datastore/?image=A", content=body, headers=headers).json()["reason"] == "image-exists"


@pytest.mark.parametrize(
    "name", ["../x", "..", "/etc/x", "a/b", "a\\b", ".hidden", "x\n", "x" * 300, "a%00b:"]
)
def test_ids_that_lead_elsewhere_are_refused(served, folder, name):
    client, _ = served
    before = sorted(folder.parent.rglob("*"))
    quoted = urllib.parse.quote_plus(name)
    body, headers = form({}, {"file": ("../../x.nii.gz", (folder / "a.nii.gz").read_bytes())})
    assert client.put(f"/datastore/?image={quoted}", content=body, headers=headers).status_code == 400
    assert client.get(f"/datastore/image?image={quoted}").status_code == 404
    assert client.post(f"/infer/threshold?image={quoted}").status_code == 404
    assert submit(client, name, b"x").status_code == 404
    assert submit(client, "a", b"x", tag=quoted).json()["reason"] == "params"
    assert sorted(folder.parent.rglob("*")) == before


NRRD = """NRRD0004
type: short
dimension: 3
space: LPS
sizes: 4 4 4
encoding: raw
endian: little
space directions: (1,0,0) (0,1,0) (0,0,1)
space origin: (0,0,0)
data file: {other}

"""
METAIMAGE = """ObjectType = Image
NDims = 3
DimSize = 4 4 4
ElementType = MET_SHORT
ElementSpacing = 1 1 1
Offset = 0 0 0
TransformMatrix = 1 0 0 0 1 0 0 0 1
ElementDataFile = {other}
"""


@pytest.mark.parametrize(("suffix", "header"), [(".nrrd", NRRD), (".mha", METAIMAGE)])
def test_an_upload_that_names_a_file_of_the_server_is_refused(served, tmp_path, suffix, header):
    client, _ = served
    secret = tmp_path / "secret.raw"
    secret.write_bytes(bytes(128))
    body, headers = form({}, {"file": (f"x{suffix}", header.format(other=secret).encode())})
    response = client.post("/infer/threshold?output=json", content=body, headers=headers)
    assert response.status_code == 422


def test_the_next_case_is_the_least_certain_one_without_a_label(served, folder, tmp_path):
    client, service = served
    service.order.entropy_bits.update({"a": 0.1, "b": 0.7})
    sample = client.post("/activelearning/least_certain", json={"client_id": "me"}).json()
    assert sample["id"] == "b"
    assert sample["name"] == "b.nii.gz"
    assert sample["checksum"] == f"SHA256:{medseg_digest(folder / 'b.nii.gz')}"
    assert client.get("/datastore/image?image=b").content == (folder / "b.nii.gz").read_bytes()
    # Another reader gets another case; the same reader gets the same one again.
    assert client.post("/activelearning/least_certain", json={"client_id": "you"}).json()["id"] == "a"
    assert client.post("/activelearning/least_certain", json={"client_id": "me"}).json()["id"] == "b"
    scan = medseg.read(folder / "b.nii.gz")
    medseg.write(Mask(np.zeros(scan.grid.shape, np.uint16), scan.grid, ()), tmp_path / "none.nii.gz")
    for name in ("a", "b", "c"):
        assert submit(client, name, (tmp_path / "none.nii.gz").read_bytes()).status_code == 200
    assert client.post("/activelearning/first", json={}).json() == {}


def test_sessions_hold_a_scan_until_they_end(served, folder, tmp_path):
    client, service = served
    scan = folder / "c.nii.gz"
    made = client.put("/session/", files=[("files", (scan.name, scan.read_bytes()))]).json()
    name = made["session_id"]
    assert client.get(f"/session/{name}").status_code == 200
    for _ in range(2):
        response = client.post(f"/infer/threshold?image=whatever&session_id={name}")
        _, mask = mask_in(response, tmp_path)
        assert np.array_equal(mask.array, medseg.segment(scan, model="threshold").array)
    assert client.delete(f"/session/{name}").status_code == 200
    assert client.get(f"/session/{name}").status_code == 404
    assert list(service.temporary.iterdir()) == []


def test_a_dicom_series_is_a_session_and_a_dicom_segmentation_its_mask(served, folder, tmp_path):
    pytest.importorskip("highdicom")
    from medseg.io import write_dicom_series

    client, _ = served
    series = tmp_path / "series"
    write_dicom_series(medseg.read(folder / "a.nii.gz"), series)
    files = [("files", (path.name, path.read_bytes())) for path in sorted(series.iterdir())]
    name = client.put("/session/", files=files).json()["session_id"]
    _, mask = mask_in(client.post(f"/infer/threshold?session_id={name}"), tmp_path)
    assert np.array_equal(mask.array, medseg.segment(series, model="threshold").array)
    seg = client.post(f"/infer/threshold?session_id={name}&output=dicom_seg")
    assert seg.content[128:132] == b"DICM"


def test_the_log_names_no_scan(served):
    client, _ = served
    client.get("/datastore/image?image=a")
    log = client.get("/logs/?lines=5").text
    assert "GET /datastore 200" in log
    assert "image=a" not in log
