"""What a user types first must answer at once: heavy packages are imported only where they are used."""

from pathlib import Path

import pytest
from support.processes import command_code, heavy_imports

from medseg.phantom.thorax import Thorax, default_grid


def test_the_check_itself_detects_a_heavy_import(tmp_path: Path):
    assert "matplotlib" in heavy_imports("import matplotlib", cwd=tmp_path)


def test_importing_medseg_is_light(tmp_path: Path):
    assert heavy_imports("import medseg", cwd=tmp_path) == []


@pytest.mark.parametrize("name", [(), ("segment",), ("train",), ("evaluate",), ("demo",)])
def test_help_is_light(name: tuple[str, ...], tmp_path: Path):
    assert heavy_imports(command_code(*name, "--help"), cwd=tmp_path) == []


def test_info_is_light(tmp_path: Path):
    Thorax().scan(default_grid((16, 16, 24))).save(tmp_path / "ct.nii.gz")
    assert heavy_imports(command_code("info", "ct.nii.gz", "--json"), cwd=tmp_path) == []


def test_reading_writing_and_comparing_are_light(tmp_path: Path):
    code = """
import medseg
from medseg.evaluation.scoring import score
from medseg.phantom.thorax import Thorax, default_grid
grid = default_grid((16, 16, 24))
truth = Thorax().truth(grid)
medseg.write(Thorax().scan(grid), "ct.nii.gz")
medseg.write(truth, "truth.nii.gz")
medseg.read("ct.nii.gz")
score(medseg.read_mask("truth.nii.gz", truth.labels), truth)
"""
    assert heavy_imports(code, cwd=tmp_path) == []
