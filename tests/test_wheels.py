"""The wheels of medseg and medseg-runtime: they have every file, and run where they are installed."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
CODE = REPO / "medseg"
USED = """
import sys
from pathlib import Path
import medseg
from medseg.serving import own_page
from medseg.visualization.viewer.server import PAGE
assert Path(medseg.__file__).is_relative_to(sys.argv[1]), medseg.__file__
assert "lung_ct" in medseg.list_recipes()
for name in ("index.html", "app.js", "app.css"):
    assert own_page._own(name)
for name in PAGE:
    assert own_page._viewers(name)
"""


def files(*, models: bool) -> set[str]:
    """Names in the package, as git has them."""
    listed = subprocess.run(["git", "ls-files", "medseg"], cwd=REPO, capture_output=True, text=True)
    if listed.returncode or not listed.stdout:
        pytest.skip("this is no clone of the repository")
    return {name for name in listed.stdout.splitlines() if models or not name.startswith("medseg/models/")}


@pytest.mark.parametrize("project", [".", "runtime"])
def test_a_wheel_has_every_file_and_runs_where_it_is_installed(tmp_path, project):
    pytest.importorskip("hatchling")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=REPO / project, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        names = {name for name in content.namelist() if ".dist-info/" not in name}
        content.extractall(tmp_path / "installed")
    wanted = files(models=project == ".")
    assert names - {"medseg/LICENSE"} == wanted
    place = str(tmp_path / "installed")
    environment = {**os.environ, "PYTHONPATH": place}
    for command in (["-c", USED, place], ["-m", "medseg", "--version"]):
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
