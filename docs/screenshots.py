"""Makes report.png: the report of a batch of phantoms, one of them damaged, one cut.

python docs/screenshots.py     (pip install -e '.[dev]', and Chromium)
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from playwright.sync_api import sync_playwright

from medseg import Grid, Volume
from medseg.phantom.thorax import Thorax, default_grid

HERE = Path(__file__).parent


def main() -> None:
    """Writes the scans, lets medseg make the report, and photographs it."""
    with TemporaryDirectory() as name:
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
        medseg = [sys.executable, "-m", "medseg.cli"]
        subprocess.run([*medseg, "batch", "scans", "-o", "segmented"], cwd=folder, check=False)
        subprocess.run([*medseg, "report", "segmented"], cwd=folder, check=True)
        photograph(folder / "segmented" / "report.html", HERE / "report.png")


def cut(scan: Volume) -> Volume:
    """The upper half."""
    from_slice = scan.grid.shape[2] // 2
    matrix = scan.grid.affine.copy()
    matrix[:3, 3] += matrix[:3, 2] * from_slice
    array = np.asfortranarray(np.asarray(scan.array)[:, :, from_slice:])
    x, y, z = array.shape
    return Volume(array, Grid((x, y, z), matrix))


def photograph(page: Path, picture: Path) -> None:
    """A picture of the page's top."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        view = browser.new_page(viewport={"width": 1200, "height": 1150})
        view.goto(page.as_uri())
        view.wait_for_timeout(1000)
        view.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    main()
