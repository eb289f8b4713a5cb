"""The viewer answers only requests from this machine that know its token, and shows left on the right."""

import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import matplotlib.image as images
import nibabel as nib
import numpy as np
import pytest
from support.browser import page

import medseg
from medseg import Mask
from medseg.cli.view import view
from medseg.errors import ResourceError, UsageError
from medseg.phantom.thorax import LABELS, Thorax, default_grid
from medseg.visualization.viewer import Server, scene
from medseg.visualization.viewer import niivue_bundle as bundles
from medseg.visualization.viewer.browser import open_in_browser

pytest.importorskip("ipyniivue")

GRID = default_grid((6.0, 6.0, 8.0), "LPS")


def lungs() -> Mask:
    truth = Thorax().truth(GRID)
    return Mask(truth.array, truth.grid, LABELS[:2])


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    right_only = Mask(np.where(np.isin(lungs().array, LABELS[1].values), 0, lungs().array), GRID, LABELS[:2])
    with Server(scene(Thorax().scan(GRID), [("all.nii.gz", lungs()), ("right.nii.gz", right_only)])) as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield one
        one.shutdown()


def ask(server: Server, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    connection.putrequest("GET", path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read()


def test_requests_without_the_token_are_refused(server):
    status, headers, _ = ask(server, f"/{server.token}/page.html")
    assert status == 200
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert server.server_address[0] == "127.0.0.1"
    for path in ("/", "/page.html", "/x/page.html", f"/{server.token[:-1]}/page.html"):
        assert ask(server, path)[0] == 404


@pytest.fixture
def started(monkeypatch) -> list[str]:
    """The addresses that a browser was started with."""
    addresses: list[str] = []
    monkeypatch.setattr("webbrowser.open", addresses.append)
    return addresses


def test_the_browser_is_not_started_with_the_token(server, started):
    with open_in_browser(server):
        (address,) = started
        assert server.token not in address
        path = Path(url2pathname(urlsplit(address).path))
        assert path.parent.stat().st_mode & 0o077 == 0
        assert server.url in path.read_text()
    assert not path.parent.exists()


def test_the_page_that_is_opened_leads_to_the_viewer(server, started):
    with open_in_browser(server), page() as tab:
        tab.goto(started[0])
        tab.wait_for_url(server.url)


@pytest.mark.parametrize("wanted", [True, False])
def test_the_command_opens_a_browser_by_default(started, monkeypatch, tmp_path, capsys, wanted):
    monkeypatch.setattr(Server, "serve_forever", lambda self: None)
    view(Thorax().scan(GRID).save(tmp_path / "scan.nii.gz"), browser=wanted)
    url = capsys.readouterr().out.strip()
    assert url.startswith("http://127.0.0.1:")
    assert len(started) == wanted
    assert not any(url.split("/")[3] in address for address in started)


def test_no_file_outside_the_scene_is_served(server):
    for name in ("../../etc/passwd", "%2e%2e/etc/passwd", "/etc/passwd", "", "page.py", "scan.nii/.."):
        assert ask(server, f"/{server.token}/{name}")[0] == 404


def test_other_pages_are_refused(server):
    path = f"/{server.token}/scene.json"
    assert ask(server, path, Host="evil.example")[0] == 403
    assert ask(server, path, Origin="http://evil.example")[0] == 403
    assert ask(server, path, Origin="null")[0] == 403
    assert ask(server, path, Origin=f"http://127.0.0.1:{server.server_port}")[0] == 200


def test_a_page_that_is_closed_while_it_loads_is_no_error(server, capsys):
    for error, shown in ((ConnectionResetError(), False), (BrokenPipeError(), False), (ValueError(), True)):
        try:
            raise error
        except (OSError, ValueError):
            server.handle_error(None, ("127.0.0.1", 1))
        assert ("Traceback" in capsys.readouterr().err) == shown


def test_the_scene_has_the_scan_and_numbered_masks_on_its_grid(server, tmp_path):
    facts = json.loads(ask(server, f"/{server.token}/scene.json")[2])
    assert [mask["name"] for mask in facts["masks"]] == ["all.nii.gz", "right.nii.gz", "difference"]
    assert [label["name"] for label in facts["masks"][0]["labels"]] == ["right_lung", "left_lung"]
    arrays = []
    for name in ("scan.nii", "mask0.nii", "mask2.nii"):
        (tmp_path / name).write_bytes(ask(server, f"/{server.token}/{name}")[2])
        image = nib.load(tmp_path / name)
        np.testing.assert_allclose(image.affine, GRID.affine)
        arrays.append(np.asarray(image.dataobj))
    left = np.isin(Thorax().truth(GRID).array, LABELS[1].values)
    np.testing.assert_array_equal(arrays[1] == 2, left)
    np.testing.assert_array_equal(arrays[2] == 1, left)  # only the first mask has it


def test_masks_stored_in_another_order_are_shown_on_the_scans_grid(tmp_path):
    scan, mask = Thorax().scan(GRID), lungs()
    files = scene(scan, [("a", mask)]).files
    for codes in ("RAS", "SPL"):
        assert scene(scan, [("a", mask.oriented(codes))]).files == files
    both = scene(scan, [("a", mask), ("b", mask.oriented("LIA"))]).files
    (tmp_path / "difference.nii").write_bytes(both["mask2.nii"])
    assert not np.asarray(nib.load(tmp_path / "difference.nii").dataobj).any()


def test_masks_that_do_not_fit_are_refused():
    scan = Thorax().scan(GRID)
    with pytest.raises(UsageError) as refused:
        scene(scan, [("a", lungs())] * 3)
    assert refused.value.reason == "viewer-masks"
    with pytest.raises(UsageError) as refused:
        scene(Thorax().scan(default_grid((7.0, 6.0, 8.0))), [("a", lungs())])
    assert refused.value.reason == "grid-mismatch"


@pytest.mark.parametrize(
    ("installed", "text", "accepted"),
    [
        ("2.4.4", "a;var Xy$=class extends Q{async attachToCanvas(", "Xy$"),
        ("2.4.9", "a,B=class{async attachToCanvas(", "B"),
        ("2.4.4", "export default {}", ""),
        ("2.5.0", "a,B=class{async attachToCanvas(", ""),
        ("2.40.0", "a,B=class{async attachToCanvas(", ""),
        ("", "a,B=class{async attachToCanvas(", ""),
    ],
)
def test_only_known_versions_of_the_bundle_are_used(monkeypatch, tmp_path, installed, text, accepted):
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "widget.js").write_text(text)
    spec = type("Spec", (), {"origin": str(tmp_path / "__init__.py")})
    monkeypatch.setattr(bundles, "find_spec", lambda name: spec)
    monkeypatch.setattr(bundles, "_version", lambda: installed)
    if accepted:
        assert bundles.bundle.__wrapped__().endswith(f"export{{{accepted} as Niivue}};\n".encode())
        return
    with pytest.raises(ResourceError, match=r"ipyniivue==2\.4") as refused:
        bundles.bundle.__wrapped__()
    assert refused.value.reason == "viewer"


def test_a_missing_bundle_is_named(monkeypatch):
    monkeypatch.setattr(bundles, "find_spec", lambda name: None)
    with pytest.raises(ResourceError) as refused:
        bundles.bundle.__wrapped__()
    assert refused.value.reason == "missing-extra"


def test_a_difference_tells_three_kinds_apart(tmp_path):
    """By hand: four voxels are only in the first, only in the second, right for left, and equal."""
    first, second = np.zeros((2, *GRID.shape), np.uint8)
    first[:4, 0, 0], second[:4, 0, 0] = (1, 0, 1, 2), (0, 2, 2, 2)
    masks = [(name, Mask(array, GRID, LABELS[:2])) for name, array in (("a", first), ("b", second))]
    files = scene(Thorax().scan(GRID), masks).files
    (tmp_path / "difference.nii").write_bytes(files["mask2.nii"])
    differ = np.asarray(nib.load(tmp_path / "difference.nii").dataobj)
    assert differ[:4, 0, 0].tolist() == [1, 2, 3, 0]
    first_mask, _, difference = json.loads(files["scene.json"])["masks"]
    colours = [[label["colour"] for label in mask["labels"]] for mask in (first_mask, difference)]
    assert len(set(colours[0]) | set(colours[1])) == 5


def tinted(picture: np.ndarray, *, blue: bool) -> np.ndarray:
    """Places of the first label's blue, or of the second's orange; the crosshair is red."""
    red, green, other = np.moveaxis(picture, -1, 0)
    return np.argwhere(other - red > 0.12 if blue else (red - other > 0.12) & (green - other > 0.06))


def reddish(picture: np.ndarray) -> np.ndarray:
    """Places of vermillion: what only the first mask has."""
    red, green, other = np.moveaxis(picture, -1, 0)
    return np.argwhere((red - green > 0.08) & (green - other > 0.04))


@pytest.mark.slow
def test_left_is_on_the_right_and_masks_are_visible(server, tmp_path):
    with page(viewport={"width": 1000, "height": 700}) as tab:
        tab.goto(server.url)
        tab.wait_for_selector("body[data-ready=yes]", timeout=240_000)
        assert all(url.startswith(f"http://127.0.0.1:{server.server_port}/") for url in tab.asked)
        for number in range(2):  # planes and 3D of both masks
            drawn, _ = tab.evaluate(LETTERS_DRAWN.replace("medsegViews[0]", f"medsegViews[{number}]"))
            assert set("RLAPSI") <= set(drawn)
        tab.get_by_label("axial", exact=True).check()
        tab.wait_for_timeout(500)

        def shot(number: int) -> np.ndarray:
            tab.locator("main > div").nth(number).screenshot(path=tmp_path / "shot.png")
            return images.imread(tmp_path / "shot.png")[..., :3]

        both, alone = shot(0), shot(1)
        blue, orange = tinted(both, blue=True), tinted(both, blue=False)
        assert len(blue) > 1000
        assert len(orange) > 1000
        assert blue[:, 1].mean() < both.shape[1] / 2 < orange[:, 1].mean()  # the right lung is on the left
        assert len(tinted(alone, blue=False)) < 300
        tab.get_by_label("right lung").uncheck()
        tab.wait_for_timeout(500)
        assert len(tinted(shot(0), blue=True)) < 300
        tab.get_by_label("difference", exact=True).check()
        tab.wait_for_timeout(500)
        apart = reddish(shot(1))
        assert len(apart) > 1000
        assert apart[:, 1].mean() > both.shape[1] / 2  # the left lung, only in the first
        bright = shot(0).mean()
        tab.get_by_role("button", name="mediastinum").click()
        tab.wait_for_timeout(500)
        assert shot(0).mean() < bright


def pointer_mm(text: str) -> list[float]:
    """The position at the pointer, RAS+ mm."""
    places = [part.split() for part in text.split(" · ")[1:4]]
    return [float(number) * (1 if side in "RAS" else -1) for side, number, *_ in places]


@pytest.mark.slow
def test_pointer_keys_wheel_and_window(tmp_path):
    """The phantom has no symmetry, and its axes have different sizes: no axis can be exchanged."""
    scan = Thorax().scan(GRID)
    with (
        Server(scene(scan, [("lungs", lungs())])) as one,
        page(viewport={"width": 900, "height": 700}) as tab,
    ):
        threading.Thread(target=one.serve_forever, daemon=True).start()
        tab.goto(one.url)
        tab.wait_for_selector("body[data-ready=yes]", timeout=240_000)
        place = tab.locator("#place")
        assert place.inner_text().endswith(f"of {GRID.shape[2]}")  # from the start
        assert " HU · " in place.inner_text()
        presets = tab.locator("#presets button").all_inner_texts()
        assert presets == ["lung", "mediastinum", "bone", "brain", "liver"]
        volume = f"right lung {lungs().volumes_ml()['right_lung']:.1f} ml"
        assert tab.locator("#labels").inner_text().lstrip("■ ").startswith(volume)

        tab.get_by_label("axial", exact=True).check()
        box = tab.locator("canvas").first.bounding_box()
        for across, down in ((0.42, 0.45), (0.55, 0.6)):
            tab.mouse.move(box["x"] + box["width"] * across, box["y"] + box["height"] * down)
            tab.wait_for_timeout(300)
            value, mm = place.inner_text().split(" · ")[0], pointer_mm(place.inner_text())
            voxel = np.linalg.solve(GRID.affine, [*mm, 1])[:3].round().astype(int)
            assert (across < 0.5) == (mm[0] > 0)  # the right is on the left
            assert int(value.split()[0]) == scan.array[tuple(voxel)]

        def number() -> int:
            return int(place.inner_text().split(" slice ")[1].split()[0])

        start = number()
        for key, moved in (("ArrowUp", 1), ("PageUp", 11), ("PageDown", 1), ("ArrowDown", 0)):
            tab.keyboard.press(key)
            assert number() == start + moved
        for key in "vcphjkl":  # NiiVue's own keys
            tab.keyboard.press(key)
        assert tab.evaluate("medsegViews[0].opts.sliceType") == 0
        assert number() == start
        tab.mouse.wheel(0, 100)
        tab.wait_for_timeout(300)
        assert number() != start

        for name, level, width in WINDOWS:
            tab.get_by_role("button", name=name).click()
            assert (tab.input_value("#level"), tab.input_value("#width")) == (level, width)
        tab.locator("#width").fill("400")
        tab.keyboard.press("Tab")
        limits = "[medsegViews[0].volumes[0].cal_min, medsegViews[0].volumes[0].cal_max]"
        assert tab.evaluate(limits) == [-170, 230]
        middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        tab.mouse.move(*middle)
        tab.mouse.down(button="right")
        tab.mouse.move(middle[0] + 60, middle[1] + 30, steps=6)
        tab.mouse.up(button="right")
        tab.wait_for_timeout(300)
        low, high = tab.evaluate(limits)
        assert (low, high) != (-170, 230)
        assert int(tab.input_value("#width")) == pytest.approx(high - low, abs=1)

        tab.get_by_label("distance").check()
        tab.mouse.move(*middle)
        tab.mouse.down()
        tab.wait_for_timeout(300)
        begin = pointer_mm(place.inner_text())
        tab.mouse.move(middle[0] + 80, middle[1], steps=4)
        tab.wait_for_timeout(300)
        end = pointer_mm(place.inner_text())
        tab.mouse.up()
        (drawn,) = tab.evaluate("medsegViews[0].document.completedMeasurements.map(each => each.distance)")
        assert np.linalg.norm(np.subtract(end, begin)) > 20
        assert drawn == pytest.approx(np.linalg.norm(np.subtract(end, begin)), abs=1)
        tab.get_by_label("contour").check()
        assert tab.evaluate("medsegViews[0].overlayAlphaShader") == 0
        with tab.expect_download(timeout=60_000) as saved:
            tab.get_by_role("button", name="Screenshot").click()
        assert saved.value.suggested_filename == "medseg.png"
        tab.get_by_role("button", name="Reset").click()
        assert tab.evaluate(limits) == [-1400, 200]
        assert tab.evaluate("medsegViews[0].document.completedMeasurements.length") == 0
        assert tab.get_by_label("planes and 3D").is_checked()
        one.shutdown()


# Level and width in HU, as in the article that scene.py names.
WINDOWS = (
    ("lung", "-600", "1600"),
    ("mediastinum", "40", "400"),
    ("bone", "400", "1800"),
    ("brain", "40", "80"),
    ("liver", "30", "150"),
)
LETTERS_DRAWN = """() => {
  const view = medsegViews[0], found = {};
  view.drawText = (at, text, ...rest) => {
    found[text] = [at[0], at[1], view.textWidth(view.fontPx, text), view.fontPx];
    return Object.getPrototypeOf(view).drawText.call(view, at, text, ...rest);
  };
  view.drawScene();
  delete view.drawText;
  return [found, view.screenSlices[0].leftTopWidthHeight];
}"""


@pytest.mark.slow
def test_letters_and_contours_lie_inside_the_picture_that_comes_first(tmp_path):
    with (
        Server(scene(Thorax().scan(GRID), [("lungs", lungs())])) as one,
        page(viewport={"width": 900, "height": 700}) as tab,
    ):
        threading.Thread(target=one.serve_forever, daemon=True).start()
        tab.goto(one.url)
        tab.wait_for_selector("body[data-ready=yes]", timeout=240_000)
        # Three planes are seen before the viewer or a voxel is asked for.
        names = [url.rpartition("/")[2] for url in tab.asked]
        assert names.index("first0.webp") < names.index("niivue.js") < names.index("scan.nii")
        asked = (
            "performance.getEntriesByType('resource').find(each => each.name.endsWith('niivue.js')).startTime"
        )
        assert tab.evaluate(f"performance.getEntriesByName('first picture')[0].startTime <= {asked}")
        assert tab.locator("img.first").count() == 0

        def shot() -> np.ndarray:
            tab.wait_for_timeout(300)
            tab.locator("main > div").screenshot(path=tmp_path / "shot.png")
            return images.imread(tmp_path / "shot.png")[..., :3]

        for plane, letters in (("sagittal", "APSI"), ("coronal", "RLSI"), ("axial", "RLAP")):
            tab.get_by_label(plane, exact=True).check()
            found, (left, top, width, height) = tab.evaluate(LETTERS_DRAWN)
            assert set(found) == set(letters)
            left, width, picture = min(left, left + width), abs(width), shot()
            for letter, (x, y, wide, tall) in found.items():
                assert left <= x < x + wide <= left + width, (plane, letter)
                assert top <= y < y + tall <= top + height, (plane, letter)
                around = picture[int(y) : int(y + tall), int(x - 2) : int(x + wide + 2)]
                assert around.max() > 0.9, (plane, letter)
                assert np.median(around) < 0.4, (plane, letter)
            for first, second, axis in ((letters[0], letters[1], 0), (letters[2], letters[3], 1)):
                assert found[first][axis] < (left + width / 2, top + height / 2)[axis] < found[second][axis]

        filled = tinted(shot(), blue=True)
        assert len(filled) > 1000
        tab.get_by_label("contour", exact=True).check()
        lines = tinted(shot(), blue=True)
        assert 100 < len(lines) < 0.3 * len(filled)
        np.testing.assert_allclose([lines.min(0), lines.max(0)], [filled.min(0), filled.max(0)], atol=3)
        with tab.expect_download(timeout=60_000) as saved:
            tab.get_by_role("button", name="Screenshot").click()
        saved.value.save_as(tmp_path / "saved.png")
        assert len(tinted(images.imread(tmp_path / "saved.png")[..., :3], blue=True)) > 100
        tab.locator("#opacity").fill("0")
        assert len(tinted(shot(), blue=True)) == 0
        tab.locator("#opacity").fill("1")
        tab.get_by_label("right lung").uncheck()
        assert len(tinted(shot(), blue=True)) < 50
        tab.get_by_label("right lung").check()
        tab.get_by_label("3D", exact=True).check()
        solid = shot()
        assert len(tinted(solid, blue=True)) > 1000  # the surface of the lung is not drawn as lines
        grey = (np.ptp(solid, -1) < 0.05) & (solid.mean(-1) > 0.2)
        assert grey.mean() < 0.03  # lungs without the block of the scan around them
        one.shutdown()


def test_a_notebook_gets_a_widget(tmp_path):
    path = Thorax().scan(GRID).save(tmp_path / "scan.nii.gz")
    shown = medseg.view(path, lungs())
    assert [volume.name for volume in shown.volumes] == ["scan.nii", "mask0.nii"]


def test_the_controls_of_the_notebook_change_window_mask_and_contours():
    right = Mask(np.where(np.isin(lungs().array, LABELS[1].values), 0, lungs().array), GRID, LABELS[:2])
    shown = medseg.view(Thorax().scan(GRID), lungs(), right)
    scan, first, second, difference = shown.volumes
    assert (scan.cal_min, scan.cal_max) == (-1400, 200)
    assert [layer.opacity for layer in (first, second, difference)] == [0.5, 0, 0]
    assert f"right lung {lungs().volumes_ml()['right_lung']:.1f} ml" in shown.children[2].children[0].value
    assert shown.window.options == ("lung", "mediastinum", "bone", "brain", "liver")
    shown.window.value = "mediastinum"
    assert (scan.cal_min, scan.cal_max) == (-160, 240)
    assert shown.layer.options == ("mask 1", "mask 2", "difference")
    shown.layer.value, shown.opacity.value = "difference", 0.7
    assert [layer.opacity for layer in (first, second, difference)] == [0, 0, 0.7]
    shown.drawn.value = "contour"
    assert difference.opacity < 0.01
    assert shown.niivue.opts.atlas_outline == 0.7
    shown.drawn.value = "fill"
    assert (difference.opacity, shown.niivue.opts.atlas_outline) == (0.7, 0)


def test_a_scan_without_masks_has_only_the_window_to_choose():
    shown = medseg.view(Thorax().scan(GRID))
    assert len(shown.children) == 2


def test_masks_are_marked_as_label_maps(tmp_path):
    for name, code in (("scan.nii", 0), ("mask0.nii", 1002)):
        (tmp_path / name).write_bytes(scene(Thorax().scan(GRID), [("a", lungs())]).files[name])
        assert nib.load(tmp_path / name).header["intent_code"] == code
