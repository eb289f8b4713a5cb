"""The order in which to annotate the cases of a batch, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.commands import invoke

from medseg.batch_processing import results
from medseg.batch_processing.annotation_order import rank_cases
from medseg.errors import UsageError
from medseg.inference.case_result import CaseResult


def table(folder: Path) -> Path:
    folder.mkdir()
    found = [
        CaseResult(
            "sure", "a", status="done", entropy={"liver": 0.1, "tumour": 0.2}, inputs=("sure.nii.gz",)
        ),
        CaseResult("unsure", "a", status="done", entropy={"liver": 0.5}),
        CaseResult("unsure", "b", status="done", entropy={"liver": 0.3}),  # of two models: 0.4
        CaseResult("none", "a", status="done"),
        CaseResult("broken", "a", status="failed", reason="truncated", message="the file ends early"),
    ]
    return results.write(folder / results.NAME, found)


def test_the_least_certain_case_comes_first(tmp_path: Path) -> None:
    table(tmp_path / "batch")
    ranked = rank_cases(tmp_path / "batch")
    assert [each.case for each in ranked] == ["none", "unsure", "sure", "broken"]
    assert [each.note for each in ranked] == ["nothing found", "", "", "failed: truncated"]
    assert [each.entropy_bits for each in ranked[1:3]] == pytest.approx([0.4, 0.15])
    assert ranked[2].input == "sure.nii.gz"


def test_the_list_is_printed_and_written(tmp_path: Path) -> None:
    table(tmp_path / "batch")
    for _ in range(2):  # a list of this command is replaced
        out, _ = invoke("rank", tmp_path / "batch", "-o", tmp_path / "next.csv", "-n", 2)
    assert out == "none\tnothing found\t\nunsure\t0.4000 bits\t\n"
    assert (tmp_path / "next.csv").read_text().splitlines() == [
        "case,entropy_bits,note,input",
        "none,,nothing found,",
        "unsure,0.4000,,",
        "sure,0.1500,,sure.nii.gz",
        "broken,,failed: truncated,",
    ]


def test_other_files_are_neither_read_nor_replaced(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError) as caught:
        rank_cases(tmp_path / "empty")
    assert caught.value.reason == "nothing-to-report"
    (tmp_path / "mine.csv").write_text("case,note\n")
    with pytest.raises(UsageError) as caught:
        rank_cases(table(tmp_path / "batch"), tmp_path / "mine.csv")
    assert caught.value.reason == "foreign-file"


def test_masks_without_an_entropy_come_late_and_are_refused_alone(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    silent = CaseResult("thresholds", "a", status="done", volumes_ml={"lung": 4000.0})
    sure = CaseResult("sure", "a", status="done", entropy={"lung": 0.1}, volumes_ml={"lung": 4000.0})
    results.write(tmp_path / "b" / results.NAME, [silent, sure])
    assert [each.note for each in rank_cases(tmp_path / "b")] == ["", "no entropy"]
    results.write(tmp_path / "b" / results.NAME, [silent])
    with pytest.raises(UsageError, match="none of the masks has an entropy") as caught:
        rank_cases(tmp_path / "b")
    assert caught.value.reason == "no-entropy"
