"""The picture of a scan's budget is drawn from the tables of docs/performance.md."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "speed"))
import budget


def test_stages_are_read_from_tables_and_drawn(tmp_path, monkeypatch):
    page = tmp_path / "performance.md"
    page.write_text(
        "| lung model, CPU s | import | read | prepare | network | restore | write | share |\n|---|\n"
        "| `lung_ct` | 1 | 2 | 3 | 4 | 5 | 6 | 0.1, 0.2 |\n\n"
        "| | wall s | times medseg's | import | read | prepare | network | restore | write |\n|---|\n"
        "| ours | 9 | | 3.8, with read | | 0.5 | 30.4 | 0.9 | 0.03 |\n"
        "| peer + thresholds | 9 | | 1 | 1 | 1 | 1 | 1 | 1 |\n"
    )
    monkeypatch.setattr(budget, "PAGE", page)
    assert budget.table("| lung model") == [("lung_ct", dict(zip(budget.STAGES, range(1, 7), strict=True)))]
    ((name, seconds),) = budget.table("| | wall s")
    assert name == "ours"
    assert list(seconds.values()) == [3.8, 0, 0.5, 30.4, 0.9, 0.03]
    budget.draw(tmp_path / "budget.svg")
    assert "</svg>" in (tmp_path / "budget.svg").read_text()


def test_the_page_has_both_tables():
    assert [name for name, _ in budget.table("| lung model, CPU s |")] == ["lung_ct", "lung_ct_context"]
    assert len(budget.table("| | wall s | times medseg's |")) == 4
