"""``medseg tune``: mistakes are named before anything heavy is imported or anything is written."""

from __future__ import annotations

from pathlib import Path

from support.commands import invoke
from support.processes import command_code, heavy_imports
from support.worlds import tiny


def test_a_wrong_name_is_told_without_heavy_imports(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(tiny().yaml())
    (tmp_path / "space.yaml").write_text("train.lerning_rate: [1e-3]\n")
    (tmp_path / "cases.csv").write_text("id,image\na,a.nii.gz\n")
    words = ["tune", "cases.csv", "--recipe", "r.yaml", "--space", "space.yaml", "-o", "search"]
    code = f"""
try:
    {command_code(*words).replace("; ", chr(10) + "    ")}
except SystemExit as ended:
    assert ended.code == 2
"""
    assert heavy_imports(code, cwd=tmp_path) == []
    assert not (tmp_path / "search").exists()


def test_the_nearest_field_is_named(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(tiny().yaml())
    (tmp_path / "space.yaml").write_text("train.lerning_rate: [1e-3]\n")
    (tmp_path / "cases.csv").write_text("id,image\na,a.nii.gz\n")
    search = tmp_path / "search"
    _, err = invoke(
        *("tune", tmp_path / "cases.csv", "--recipe", tmp_path / "r.yaml", "-o", search),
        *("--space", tmp_path / "space.yaml"),
        code=2,
    )
    assert "did you mean train.learning_rate?" in err
