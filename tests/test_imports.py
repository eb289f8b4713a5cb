"""What a user types first must answer at once: heavy packages are imported only where they are used."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from medseg.phantom.thorax import Thorax, default_grid

HEAVY = ("lightning", "matplotlib", "monai", "pandas", "torch")
REPORT = f"""
import atexit, json, sys
atexit.register(lambda: print(json.dumps([name for name in {HEAVY} if name in sys.modules])))
"""


def heavy_after(code: str, *, cwd: Path) -> list[str]:
    """The heavy packages a fresh interpreter has imported after running ``code``."""
    done = subprocess.run(
        [sys.executable, "-c", REPORT + code], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def command(*arguments: str) -> str:
    return f"sys.argv = {['medseg', *arguments]!r}; from medseg.cli import main; main()"


def test_the_check_itself_sees_a_heavy_import(tmp_path: Path):
    assert "matplotlib" in heavy_after("import matplotlib", cwd=tmp_path)


def test_importing_medseg_is_light(tmp_path: Path):
    assert heavy_after("import medseg", cwd=tmp_path) == []


@pytest.mark.parametrize("name", [(), ("segment",), ("train",), ("evaluate",), ("demo",)])
def test_help_is_light(name: tuple[str, ...], tmp_path: Path):
    assert heavy_after(command(*name, "--help"), cwd=tmp_path) == []


def test_info_is_light(tmp_path: Path):
    Thorax().scan(default_grid((16, 16, 24))).save(tmp_path / "ct.nii.gz")
    assert heavy_after(command("info", "ct.nii.gz", "--json"), cwd=tmp_path) == []


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
    assert heavy_after(code, cwd=tmp_path) == []
