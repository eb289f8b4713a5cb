"""How long the viewer's page takes from the request to the first picture, and until it can be used.

    python benchmarks/viewer.py runs/speed/ct_512x512x300.nii.gz [MASK ...] [--rounds 3]

Each round is a new headless Chromium, which draws WebGL in software without a graphics card. Times are
those of the page's own clock, in seconds; reading the files before is not in them.
"""

from __future__ import annotations

import argparse
import shutil
import threading
from statistics import median

from playwright.sync_api import sync_playwright

import medseg

FLAGS = ["--no-sandbox", "--enable-unsafe-swiftshader", "--disable-dev-shm-usage"]


def main() -> None:
    """Prints the times of each round, and minimum and median."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scan")
    parser.add_argument("masks", nargs="*")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    times: list[tuple[float, float]] = []
    with medseg.serve_viewer(arguments.scan, *arguments.masks) as server, sync_playwright() as playwright:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for _ in range(arguments.rounds):
            browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(server.url)
            page.wait_for_selector("body[data-ready=yes]", timeout=600_000)
            first = page.evaluate("performance.getEntriesByName('first picture')[0].startTime") / 1000
            times.append((first, page.evaluate("performance.getEntriesByName('ready')[0].startTime") / 1000))
            print(f"first picture {times[-1][0]:.2f}, ready {times[-1][1]:.1f}", flush=True)
            browser.close()
        server.shutdown()
    for name, column in zip(("first picture", "ready"), zip(*times, strict=True), strict=True):
        print(f"{name}: minimum {min(column):.2f}, median {median(column):.2f} s")


if __name__ == "__main__":
    main()
