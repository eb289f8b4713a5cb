from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from support.commands import invoke

from medseg.errors import InputRefused, UsageError
from medseg.evaluation.comparison import compare, write
from medseg.evaluation.evaluation_files import read_evaluation


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


def test_scans_of_one_patient_are_one_piece_of_evidence_in_the_test():
    # B is better by 0.01 in all 12 scans of both patients: 2 / 2^2 over patients, 2 / 2^24 over scans.
    rows = {f"{patient}-{scan}": {"lung": 0.8 + scan / 100} for patient in "pq" for scan in range(12)}
    a = evaluation(rows).assign(patient=lambda frame: frame["case"].str[0])
    row = compare({"a": a, "b": a.assign(dice=a["dice"] + 0.01)}).table.iloc[0]
    assert (row["pairs"], row["patients"], row["p"], row["p_holm"]) == (24, 2, 0.5, 0.5)
    assert compare({"a": a, "b": a.assign(dice=a["dice"] + 0.01)}).few_patients == 1


def test_a_patient_counts_with_the_mean_over_the_scans():
    # By patient: p0 (+2 - 1) / 2 > 0, the other five > 0: 2 / 2^6. By scan one of seven is negative.
    values = {"p0-a": 0.02, "p0-b": -0.01} | {f"p{n}-a": 0.01 * (n + 1) for n in range(1, 6)}
    a = evaluation({case: {"lung": 0.5} for case in values}).assign(patient=[case[:2] for case in values])
    b = a.assign(dice=[0.5 + value for value in values.values()])
    row = compare({"a": a, "b": b}).table.iloc[0]
    assert (row["pairs"], row["patients"], row["p"]) == (7, 6, 2 / 64)
    # A patient whose scans cancel out has no difference: five patients remain, 2 / 2^5.
    c = a.assign(dice=[0.5 + value for value in (values | {"p0-a": 0.01}).values()])
    row = compare({"a": a, "c": c}).table.iloc[0]
    assert (row["patients"], row["patients_equal"], row["p"]) == (6, 1, 2 / 32)


def test_cases_that_cannot_be_paired_are_listed():
    left = compare({"a": A, "b": B}).left_out
    listed = {(row["case"], row["label"], row["why"]) for _, row in left.iterrows()}
    assert listed == {("5", "lung", "failed in b"), ("5", "heart", "failed in b")}
    assert set(left["metric"]) == {""}


def test_cases_of_one_evaluation_only_and_cases_that_failed_in_both_are_listed():
    a = evaluation({"0": {"lung": 0.9}, "1": {"lung": 0.9}}, failed=("x", "y"))
    b = evaluation({"0": {"lung": 0.9}, "2": {"lung": 0.9, "heart": 0.5}}, failed=("y", "z"))
    left = compare({"a": a, "b": b}).left_out
    assert [(row["case"], row["label"], row["why"]) for _, row in left.iterrows()] == [
        ("1", "lung", "not in b"),
        ("x", "", "failed in a; not in b"),
        ("y", "", "failed in a; failed in b"),
        ("2", "lung", "not in a"),
        ("2", "heart", "not in a"),
        ("z", "", "failed in b; not in a"),
    ]


def test_a_label_undefined_in_one_is_listed_and_excluded_from_both_means():
    # Truth and prediction of a have no heart in case 0, b finds one: Dice is undefined in a, 0 in b.
    a = evaluation({"0": {"lung": 0.9, "heart": math.nan}, "1": {"lung": 0.8, "heart": 0.6}})
    b = evaluation({"0": {"lung": 0.8, "heart": 0.0}, "1": {"lung": 0.9, "heart": 0.7}})
    found = compare({"a": a, "b": b})
    row = found.left_out.iloc[0]
    assert (len(found.left_out), row["case"], row["label"]) == (1, "0", "heart")
    assert (row["metric"], row["why"]) == ("dice", "undefined in a")
    heart, every = (found.table.set_index("label").loc[name] for name in ("heart", "all labels"))
    assert (heart["pairs"], heart["undefined"]) == (1, 1)
    # Case 0 counts with its lung in both, case 1 with both labels: means (.9 + .7) / 2 and (.8 + .8) / 2.
    assert (every["pairs"], every["a_mean"], every["b_mean"]) == (2, pytest.approx(0.8), pytest.approx(0.8))


def test_labels_of_one_evaluation_only_are_excluded_from_the_mean():
    a = evaluation({"0": {"lung": 0.9, "heart": 0.1, "liver": 0.2}})
    b = evaluation({"0": {"lung": 0.8, "heart": 0.2}})
    table = compare({"a": a, "b": b}).table.set_index("label")
    assert table.loc["all labels", "difference_mean"] == pytest.approx(0.0)  # (-.1 + .1) / 2
    assert table.loc["liver", "pairs"] == 0
    assert math.isnan(table.loc["liver", "p_holm"])


def test_equal_differences_stay_equal_despite_rounding():
    # As floats .03 - .02, .02 - .01 ... differ in the last digit; all five ranks are equal: p = 2 / 32.
    a = evaluation({str(n): {"lung": n / 100} for n in range(1, 6)})
    b = evaluation({str(n): {"lung": (n + 1) / 100} for n in range(1, 6)})
    row = compare({"a": a, "b": b}).table.iloc[0]
    assert (row["p"], row["equal"]) == (2 / 32, 0)
    assert compare({"a": a, "b": a}).table.iloc[0]["equal"] == 5


def test_different_truths_and_tolerances_are_refused():
    a = A.assign(truth_ml=10.0, nsd=0.9, nsd_tolerance_mm=3.0)
    compare({"a": a, "b": B.assign(truth_ml=10.0001)})
    with pytest.raises(InputRefused, match="the truth has 10 ml in a but 11 ml in b") as caught:
        compare({"a": a, "b": B.assign(truth_ml=11.0)})
    assert caught.value.reason == "not-comparable"
    loose = a.assign(nsd_tolerance_mm=2.0)
    compare({"a": a, "b": loose})
    with pytest.raises(InputRefused, match="the NSD tolerance is 3 mm in a but 2 mm in b"):
        compare({"a": a, "b": loose}, ("nsd",))


def test_surface_metrics_of_an_earlier_definition_are_not_compared():
    old = A.assign(nsd=0.9, hd95_mm=2.0)
    new = B.assign(nsd=0.9, hd95_mm=2.0, hd95_voxel_mm=1.0)
    for metric in ("nsd", "hd95_mm"):
        with pytest.raises(
            InputRefused, match=f"{metric} of a was calculated by an earlier version"
        ) as caught:
            compare({"a": old, "b": new}, (metric,))
        assert caught.value.reason == "not-comparable"
        compare({"a": old, "b": old}, (metric,))
    compare({"a": old, "b": new}, ("dice",))


def test_only_an_empty_cell_is_missing(tmp_path):
    (tmp_path / "t.csv").write_text("case,patient,label,status,dice\nNA,1,null,ok,\n")
    row = read_evaluation(tmp_path / "t.csv").iloc[0]
    assert (row["case"], row["label"], math.isnan(row["dice"])) == ("NA", "null", True)


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
    with pytest.raises(UsageError, match="a has no metric 'patient'"):
        compare({"a": A, "b": B}, ("patient",))


def test_evaluations_without_a_common_case_and_a_single_one_are_refused():
    other = evaluation({"x": {"lung": 0.5}})
    with pytest.raises(UsageError, match="no case in common"):
        compare({"a": A, "b": other})
    with pytest.raises(UsageError, match="at least two"):
        compare({"a": A})


def test_files_that_are_not_evaluations_are_refused(tmp_path):
    with pytest.raises(InputRefused, match="cannot be read"):
        read_evaluation(tmp_path / "gone.csv")
    for text, message in (
        ("", "not a CSV table"),
        ("a,b\n1,2\n", "no column 'case'"),
        ("case,patient,label,status,dice\n1,1,l,ok,1\n1,1,l,ok,1\n", "has label 'l' twice"),
        ("case,patient,label,status,dice\n1,1,l,ok,good\n", "'dice' has values that are not finite"),
        ("case,patient,label,status,dice\n1,1,l,ok,inf\n", "'dice' has values that are not finite"),
    ):
        (tmp_path / "t.csv").write_text(text)
        with pytest.raises(InputRefused, match=message):
            read_evaluation(tmp_path / "t.csv")


def test_the_command_writes_the_tables(tmp_path):
    for name, frame in (("a", A), ("b", B)):
        (tmp_path / name).mkdir()
        frame.to_csv(tmp_path / name / "evaluation.csv", index=False)
    files = [str(tmp_path / name / "evaluation.csv") for name in ("a", "b")]
    out, stderr = invoke("compare", *files, "-o", tmp_path / "out", "--json")
    assert json.loads(out)[0]["pairs"] == 5
    assert "left out: 5 lung: failed in b" in stderr
    assert "3 of 3 tests have fewer than 6 patients with a difference" in stderr
    table, _ = invoke("compare", *files, "-o", tmp_path / "out")
    assert table.startswith("| A | B | label |")
    names = ["comparison.csv", "comparison.json", "comparison.md", "comparison.tex", "left_out.csv"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == names
    assert pd.read_csv(tmp_path / "out" / "comparison.csv")["p"][0] == pytest.approx(2 / 32)
    invoke("compare", files[0], files[0], "-o", tmp_path / "out", code=2)


def test_the_returned_paths_are_the_written_files(tmp_path):
    assert all(path.is_file() for path in write(compare({"a": A, "b": B}), tmp_path))


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["x/a.csv", "x/b.csv"], ["a", "b"]),
        (["x/a/evaluation.csv", "x/b/evaluation.csv"], ["a", "b"]),
        (["a/test/evaluation.csv", "b/test/evaluation.csv"], ["a", "b"]),
        (["a/1/e.csv", "a/2/e.csv", "b/1/e.csv"], ["a/1/e.csv", "a/2/e.csv", "b/1/e.csv"]),
    ],
)
def test_evaluations_get_distinct_names(tmp_path, monkeypatch, paths, names):
    monkeypatch.chdir(tmp_path)
    for path in map(Path, paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        A.to_csv(path, index=False)
    out, _ = invoke("compare", *paths, "-o", "out", "--json")
    assert [json.loads(out)[0]["a"], json.loads(out)[-1]["b"]] == [names[0], names[-1]]
