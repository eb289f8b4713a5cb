"""Makes report.png (a batch of phantoms, one damaged, one cut) and viewer.png (two masks compared).

python docs/screenshots.py     (pip install -e '.[dev]', and Chromium)
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from playwright.sync_api import BrowserType, Page, sync_playwright

import medseg
from medseg import Grid, Mask, Volume
from medseg.phantom.thorax import LABELS, Thorax, default_grid

HERE = Path(__file__).parent


def main() -> None:
    """Writes the scans, lets medseg make report and viewer, and photographs them."""
    with TemporaryDirectory() as name:
        compare(HERE / "viewer.png")
        folder = Path(name)
        scans = folder / "scans"
        scans.mkdir()
        for number in range(14):
            scan = Thorax.random(3000 + number).scan(default_grid((2.5, 2.5, 4.0), "LPS"), seed=number)
            if number == 5:
                scan = cut(scan)
            scan.save(scans / f"patient_{number + 1:02d}.nii.gz")
        damaged = scans / "patient_09.nii.gz"
        damaged.write_bytes(damaged.read_bytes()[:5000])
        command = [sys.executable, "-m", "medseg"]
        subprocess.run(
            [*command, "batch", "scans", "-o", "segmented", "--model", "threshold"], cwd=folder, check=False
        )
        subprocess.run([*command, "report", "segmented"], cwd=folder, check=True)
        photograph(folder / "segmented" / "report.html", HERE / "report.png")


def compare(picture: Path) -> None:
    """A picture of the viewer with the lungs of a phantom, and with a part of them."""
    grid = default_grid((2.0, 2.0, 2.5), "LPS")
    truth = Thorax().truth(grid)
    first = np.where(np.isin(truth.array, (1, 2, 3, 4)), truth.array, 0).astype(np.uint8)
    second = np.where(first > 2, 0, np.roll(first, 3, axis=1) * (first > 0)).astype(np.uint8)
    masks = [Mask(array, grid, LABELS[:2]) for array in (first, second)]
    with medseg.serve_viewer(Thorax().scan(grid), *masks) as server, sync_playwright() as playwright:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = opened(playwright.chromium, 1280, 820)
        page.goto(server.url)
        page.wait_for_selector("body[data-ready=yes]", timeout=240_000)
        page.get_by_label("both", exact=True).check()
        page.wait_for_timeout(1000)
        page.screenshot(path=picture)
        server.shutdown()


def cut(scan: Volume) -> Volume:
    """The upper half."""
    from_slice = scan.grid.shape[2] // 2
    matrix = scan.grid.affine.copy()
    matrix[:3, 3] += matrix[:3, 2] * from_slice
    array = np.asfortranarray(np.asarray(scan.array)[:, :, from_slice:])
    x, y, z = array.shape
    return Volume(array, Grid((x, y, z), matrix))


def photograph(report: Path, picture: Path) -> None:
    """A picture of the page's top."""
    with sync_playwright() as playwright:
        page = opened(playwright.chromium, 1200, 1150)
        page.goto(report.as_uri())
        page.wait_for_timeout(1000)
        page.screenshot(path=picture)


def opened(chromium: BrowserType, width: int, height: int) -> Page:
    """A page of a new browser."""
    flags = ["--no-sandbox", "--enable-unsafe-swiftshader", "--disable-dev-shm-usage"]
    browser = chromium.launch(executable_path=shutil.which("chromium"), args=flags)
    return browser.new_page(viewport={"width": width, "height": height})


if __name__ == "__main__":
    main()
