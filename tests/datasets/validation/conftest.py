"""Sets of cases for the tests of data checks."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.check_cases import RECIPE
from support.worlds import phantoms

from medseg.datasets.manifest import Case, Manifest


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four patients, drawn once: that takes most of the time."""
    folder = tmp_path_factory.mktemp("drawn")
    phantoms(folder, "train", "train", "train", "train")
    return folder


@pytest.fixture
def make(drawn: Path, tmp_path: Path) -> Callable[..., list[Case]]:
    """Makes one patient per split, in files of this test only."""

    def copied(*splits: str) -> list[Case]:
        out = []
        for number, split in enumerate(splits):
            names = (f"{number}.nii.gz", f"{number}_truth.nii.gz")
            image, label = (Path(shutil.copy(drawn / name, tmp_path)) for name in names)
            out.append(Case(id=f"case_{number}", images=(image,), label=label, split=split))  # type: ignore[arg-type]  # a split
        return out

    return copied


@pytest.fixture
def cases(make: Callable[..., list[Case]]) -> list[Case]:
    """Two training cases and one to validate on, without a fault."""
    return make("train", "train", "val")


@pytest.fixture
def manifest(cases: list[Case], tmp_path: Path) -> Path:
    return Manifest("world", tuple(cases), tmp_path).write(tmp_path / "cases.csv")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.yaml())
    return path
