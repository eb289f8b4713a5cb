"""A headless Chromium for tests; they are skipped if it is not installed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def page(**options: Any) -> Iterator[Any]:
    """A page of a fresh browser without network; fails at its end if the console had an error."""
    api = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("no Chromium is installed")
    flags = ["--no-sandbox", "--enable-unsafe-swiftshader", "--disable-dev-shm-usage"]
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        try:
            fresh = browser.new_context(**options).new_page()
            errors: list[str] = []
            fresh.on("console", lambda entry: errors.append(entry.text) if entry.type == "error" else None)
            fresh.on("pageerror", lambda error: errors.append(str(error)))
            asked: list[str] = []
            fresh.on("request", lambda request: asked.append(request.url))
            fresh.asked, fresh.errors = asked, errors
            yield fresh
            assert not errors
        finally:
            browser.close()
