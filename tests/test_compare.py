from __future__ import annotations

import json

import pandas as pd
import pytest
from test_cli import both as cli

from medseg.compare import compare, read, write
from medseg.errors import InputRefused, UsageError


def evaluation(dice: dict[str, dict[str, float]], failed: tuple[str, ...] = ()) -> pd.DataFrame:
    rows = [
        {
            "case": case,
            "patient": f"P{case}",
            "label": label,
            "status": "ok",
            "dice": value,
            "volume_error_ml": 1.0,
        }
        for case, values in dice.items()
        for label, value in values.items()
    ]
    rows += [{"case": case, "patient": f"P{case}", "status": "failed"} for case in failed]
    return pd.DataFrame(rows)


A = evaluation({str(n): {"lung": 0.90 + n / 100, "heart": 0.8} for n in range(6)})
B = evaluation({str(n): {"lung": 0.91 + n / 50, "heart": 0.8} for n in range(5)}, failed=("5",))


def test_pairs_by_hand():
    found = compare({"a": A, "b": B})
    lung, heart, every = (
        found.table[found.table["label"] == name].iloc[0] for name in ("lung", "heart", "all labels")
    )
    # B - A over cases 0 to 4: .01 .02 .03 .04 .05; all positive: p = 2 / 2^5.
    assert lung["pairs"] == 5
    assert lung["difference_mean"] == pytest.approx(0.03)
    assert lung["difference_median"] == pytest.approx(0.03)
    assert lung["ci_low"] < 0.03 < lung["ci_high"]
    assert lung["p"] == pytest.approx(2 / 32)
    assert (heart["p"], heart["difference_mean"]) == (1, 0)
    assert every["difference_mean"] == pytest.approx(0.015)  # the mean over both labels
    # Three tests with p 1/16, 1, 1/16: Holm gives 3/16, 1, 3/16 (2/16 is raised to the one before).
    assert [lung["p_holm"], heart["p_holm"], every["p_holm"]] == pytest.approx([3 / 16, 1, 3 / 16])


def test_what_cannot_be_paired_is_named():
    left = compare({"a": A, "b": B}).left_out
    told = {(row["case"], row["label"], row["why"]) for _, row in left.iterrows()}
    assert told == {("5", "lung", "not in b"), ("5", "heart", "not in b"), ("5", "", "not in a; failed in b")}


def test_every_pair_of_three_is_compared():
    table = compare({"a": A, "b": B, "c": A}).table
    assert list(dict.fromkeys(zip(table["a"], table["b"], strict=True))) == [
        ("a", "b"),
        ("a", "c"),
        ("b", "c"),
    ]


def test_several_metrics_and_unknown_ones():
    table = compare({"a": A, "b": B}, ("dice", "volume_error_abs_ml")).table
    assert set(table["metric"]) == {"dice", "volume_error_abs_ml"}
    with pytest.raises(UsageError, match="no metric is called 'patient'"):
        compare({"a": A, "b": B}, ("patient",))


def test_evaluations_with_nothing_in_common_and_single_ones_are_refused():
    other = evaluation({"x": {"lung": 0.5}})
    with pytest.raises(UsageError, match="no case in common"):
        compare({"a": A, "b": other})
    with pytest.raises(UsageError, match="at least two"):
        compare({"a": A})


def test_tables_that_are_none_are_refused(tmp_path):
    with pytest.raises(InputRefused, match="cannot be read"):
        read(tmp_path / "gone.csv")
    for text, told in (
        ("", "no CSV table"),
        ("a,b\n1,2\n", "no column 'case'"),
        ("case,patient,label,status,dice\n1,1,l,ok,1\n1,1,l,ok,1\n", "has label 'l' twice"),
    ):
        (tmp_path / "t.csv").write_text(text)
        with pytest.raises(InputRefused, match=told):
            read(tmp_path / "t.csv")


def test_the_command_writes_the_tables(tmp_path):
    for name, frame in (("a", A), ("b", B)):
        (tmp_path / name).mkdir()
        frame.to_csv(tmp_path / name / "evaluation.csv", index=False)
    files = [str(tmp_path / name / "evaluation.csv") for name in ("a", "b")]
    out, told = cli("compare", *files, "-o", tmp_path / "out", "--json")
    assert json.loads(out)[0]["pairs"] == 5
    assert "left out: 5 lung: not in b" in told
    assert "under 6 pairs" in told
    names = ["comparison.csv", "comparison.json", "comparison.md", "comparison.tex", "left_out.csv"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == names
    assert pd.read_csv(tmp_path / "out" / "comparison.csv")["p"][0] == pytest.approx(2 / 32)
    cli("compare", files[0], files[0], "-o", tmp_path / "out", code=2)


def test_the_written_files_are_those_returned(tmp_path):
    assert all(path.is_file() for path in write(compare({"a": A, "b": B}), tmp_path))
