"""The server's own page: a scan is dropped in a real browser, segmented, shown, and gone afterwards."""

import base64
import io
import zipfile

import numpy as np
import pytest
from support.browser import page
from support.served import in_process, scans, started

import medseg
from medseg.errors import ResourceError
from medseg.serving import loaded_models, own_page

TOKEN = "a-token-of-many-letters"
DROP = """text => {
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([bytes], "a.nii.gz"));
  document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true }));
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return scans(tmp_path_factory.mktemp("scans"), "a")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with in_process(tmp_path_factory.mktemp("temporary")) as both:
        yield both


def session(client, path) -> str:
    answer = client.put("/session/", files=[("files", (path.name, path.read_bytes()))])
    assert answer.status_code == 200, answer.text
    return answer.json()["session_id"]


def test_the_page_and_its_files_have_a_strict_policy(served):
    client, _ = served
    for place, kind in (
        ("/", "text/html"),
        ("/page/app.js", "text/javascript"),
        ("/page/app.css", "text/css"),
    ):
        answer = client.get(place)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(kind)
        (policy,) = answer.headers.get_list("content-security-policy")
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert "http:" not in policy
        assert answer.headers["cache-control"] == "no-store"
    html = client.get("/").text
    assert "http" not in html.replace("http-equiv", "")
    assert " style=" not in html
    assert "<script>" not in html
    assert client.get("/page/index.html").status_code == 404
    assert client.get("/page/..%2fserver.py").status_code == 404


def test_other_answers_keep_the_policy_of_all(served):
    (policy,) = served[0].get("/info/").headers.get_list("content-security-policy")
    assert policy == "default-src 'none'; frame-ancestors 'none'"


def test_the_page_is_refused_to_other_hosts_and_pages(served):
    client, _ = served
    assert client.get("/", headers={"Host": "evil.example"}).json()["reason"] == "foreign-host"
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        for method, place in (("GET", "/"), ("GET", "/page/app.js"), ("POST", "/session/x/view")):
            assert client.request(method, place, headers=headers).json()["reason"] == "foreign-origin"


def test_the_page_needs_the_token_where_one_is_needed(tmp_path):
    with in_process(tmp_path, host="0.0.0.0", token=TOKEN) as (client, _):
        for place in ("/", "/page/app.js", "/session/x/view/scan.nii"):
            assert client.get(place).status_code == 401
        answer = client.get(f"/{TOKEN}", follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (307, f"/{TOKEN}/")
        assert "page/app.js" in client.get(f"/{TOKEN}/").text
        assert client.get(f"/{TOKEN}/page/app.js").status_code == 200


def test_a_session_is_segmented_for_the_viewer_and_the_mask_is_that_of_segment(served, folder, tmp_path):
    client, service = served
    name = session(client, folder / "a.nii.gz")
    assert client.get(f"/session/{name}/view/mask.nii.gz").status_code == 404
    facts = client.post(f"/session/{name}/view?model=threshold").json()
    assert set(facts["volumes_ml"]) == {"left_lung", "right_lung"}
    info = client.get(f"/session/{name}").json()
    assert (info["stage"], info["done"], info["total"]) == ("", 0, 0)
    answer = client.get(f"/session/{name}/view/mask.nii.gz")
    assert 'filename="mask.nii.gz"' in answer.headers["content-disposition"]
    (tmp_path / "mask.nii.gz").write_bytes(answer.content)
    expected = medseg.segment(folder / "a.nii.gz", model="threshold")
    np.testing.assert_array_equal(medseg.read(tmp_path / "mask.nii.gz").array, expected.array)
    for other in ("..%2f..%2fx", "x.nii", "", "mask1.nii"):
        assert client.get(f"/session/{name}/view/{other}").status_code == 404
    assert client.post(f"/session/{name}/view?model=none").json()["reason"] == "model-not-found"
    client.delete(f"/session/{name}")
    assert client.get(f"/session/{name}/view/mask.nii.gz").status_code == 404
    assert list(service.temporary.iterdir()) == []


def test_without_the_viewer_the_mask_is_still_there(served, folder, monkeypatch):
    def none() -> bytes:
        raise ResourceError("the viewer is not installed", remedy="install it", reason="missing-extra")

    monkeypatch.setattr(own_page, "bundle", none)
    client, _ = served
    name = session(client, folder / "a.nii.gz")
    facts = client.post(f"/session/{name}/view").json()
    assert (facts["viewer"], facts["no_viewer"]) == (False, "the viewer is not installed: install it")
    assert client.get(f"/session/{name}/view/mask.nii.gz").status_code == 200
    client.delete(f"/session/{name}")


def test_progress_is_that_of_the_steps(served, folder, monkeypatch):
    from medseg.system.progress import show_step

    client, service = served
    seen = []

    def with_step(real, done, total, text):
        def called(*args, **options):
            show_step(done, total, text)
            seen.extend(each.step for each in service.sessions._sessions.values())
            return real(*args, **options)

        return called

    method = type(service.models.named("threshold").method)
    monkeypatch.setattr(loaded_models, "read_channels", with_step(medseg.io.read_channels, 10, 300, "slices"))
    monkeypatch.setattr(method, "prepare", with_step(method.prepare, 3, 7, "windows"))
    name = session(client, folder / "a.nii.gz")
    client.post(f"/session/{name}/view")
    assert seen == [("reading slices", 10, 300), ("segmenting windows", 3, 7)]
    client.delete(f"/session/{name}")


def test_a_zip_of_a_series_is_a_session(served, folder, tmp_path):
    client, service = served
    series = medseg.write_dicom_series(medseg.read(folder / "a.nii.gz"), tmp_path / "series")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as content:
        for path in series.iterdir():
            content.write(path, f"study/{path.name}")
    (tmp_path / "study.ZIP").write_bytes(buffer.getvalue())
    name = session(client, tmp_path / "study.ZIP")
    facts = client.post(f"/session/{name}/view").json()
    expected = medseg.segment(series, model="threshold").volumes_ml()
    assert facts["volumes_ml"] == {name: round(ml, 4) for name, ml in expected.items()}
    client.delete(f"/session/{name}")
    (tmp_path / "bad.zip").write_bytes(b"PK no zip")
    answer = client.put("/session/", files=[("files", ("bad.zip", b"PK no zip"))])
    assert answer.json()["reason"] == "upload-format"
    assert list(service.temporary.iterdir()) == []


@pytest.mark.slow
def test_a_scan_is_dropped_segmented_shown_and_gone(folder, tmp_path):
    pytest.importorskip("ipyniivue")
    expected = medseg.segment(folder / "a.nii.gz", model="threshold")
    hidden = tmp_path / "temporary"
    hidden.mkdir()
    with (
        started(tmp_path / "log", "--model", "threshold", "--token", TOKEN, TMPDIR=str(hidden)) as (url, _),
        page(accept_downloads=True) as tab,
    ):
        tab.goto(url)
        tab.wait_for_selector("body[data-state=ready]")
        tab.evaluate(DROP, base64.b64encode((folder / "a.nii.gz").read_bytes()).decode())
        tab.wait_for_selector("body[data-state=done]", timeout=300_000)
        assert "right lung" in tab.inner_text("#status")
        viewer = tab.frame(url=lambda address: address.endswith("/view/page.html"))
        viewer.wait_for_selector("body[data-ready=yes]", timeout=300_000)
        assert viewer.evaluate("medsegViews[0].volumes.map(each => each.name)") == ["scan.nii", "mask0.nii"]
        shown = viewer.evaluate("Array.from(medsegViews[0].volumes[1].img).filter(value => value > 0).length")
        assert shown == np.count_nonzero(expected.array)
        with tab.expect_download() as download:
            tab.click("#download")
        download.value.save_as(tmp_path / "mask.nii.gz")
        np.testing.assert_array_equal(medseg.read(tmp_path / "mask.nii.gz").array, expected.array)
        own = url.rpartition("/")[0]
        assert all(asked.startswith((own, "data:", "blob:")) for asked in tab.asked)
        kept = [path for path in hidden.rglob("*") if path.is_file()]
        assert kept  # of the session
        series = medseg.write_dicom_series(medseg.read(folder / "a.nii.gz"), tmp_path / "series")
        tab.set_input_files("#folder", str(series))  # the scan before is removed
        tab.wait_for_selector("body[data-state=busy]")
        tab.wait_for_selector("body[data-state=done]", timeout=300_000)
        assert len(list(hidden.rglob("mask.nii.gz"))) == 1
        tab.set_input_files("#file", {"name": "x.nii.gz", "mimeType": "", "buffer": b"no scan"})
        tab.wait_for_selector("body[data-state=failed]", timeout=300_000)
        assert "NIfTI" in tab.inner_text("#status.wrong")
        assert all("422" in text for text in tab.errors)  # the browser logs the refusal, and nothing else
        tab.errors.clear()
        tab.set_input_files("#file", str(folder / "a.nii.gz"))
        tab.wait_for_selector("body[data-state=done]", timeout=300_000)
        tab.click("#end")
        tab.wait_for_function("document.getElementById('status').textContent.includes('removed')")
        assert not [path for path in hidden.rglob("*.nii*") if path.is_file()]
    assert not [path for path in hidden.rglob("*") if path.is_file()]
