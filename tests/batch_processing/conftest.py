"""Scans for tests of batches."""

from pathlib import Path

import pytest
from support.batches import chest


@pytest.fixture
def scans(tmp_path) -> Path:
    """A folder with six scans and their manifest."""
    folder = tmp_path / "scans"
    folder.mkdir()
    rows = ["id,image"]
    for number in range(6):
        chest(number).save(folder / f"{number}.nii.gz")
        rows.append(f"c{number},{number}.nii.gz")
    (folder / "cases.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def spoiled(tmp_path, monkeypatch) -> Path:
    """A file for code that every worker runs when it starts."""
    place = tmp_path / "spoiled"
    place.mkdir()
    monkeypatch.syspath_prepend(str(place))
    return place / "sitecustomize.py"
