from __future__ import annotations

import json

import pandas as pd

from medseg.evaluation.tables import as_json, escaped, filled, latex, markdown, numbers


def test_markdown_and_latex_have_the_same_cells():
    heads, rows = ("label", "Dice ± SD"), [["right_lung", "0.9"], ["a|b", "50 %"]]
    assert markdown(heads, rows, "Note.").splitlines() == [
        "| label | Dice ± SD |",
        "|---|---:|",
        "| right_lung | 0.9 |",
        r"| a\|b | 50 % |",
        "",
        "Note.",
    ]
    text = latex(heads, rows, "Note.")
    assert text.splitlines() == [
        "% Note.",
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"label & Dice $\pm$ SD \\",
        r"\midrule",
        r"right\_lung & 0.9 \\",
        r"a|b & 50 \% \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]
    assert text.endswith("\n")


def test_latex_of_hostile_names_and_of_an_empty_table():
    heads = ("label", "95 % CI")
    text = latex(heads, [[r"\input{x}", "<0.1 – ≤0.2"], ["a & b_{1}", "nan"]], "Note.")
    assert text.splitlines()[5:7] == [
        r"\textbackslash{}input\{x\} & $<$0.1 -- $\le$0.2 \\",
        r"a \& b\_\{1\} & nan \\",
    ]
    assert r"label & 95 \% CI \\" in text
    assert len(latex(heads, [], "Note.").splitlines()) == 7


def test_latex_special_characters_are_escaped():
    assert (
        escaped(r"a&b$c#d{e}~^\ ") == r"a\&b\$c\#d\{e\}\textasciitilde{}\textasciicircum{}\textbackslash{} "
    )


def test_undefined_numbers_are_dashes():
    nan = float("nan")
    assert numbers((0.5, 0.25), ".3f", " ± ") == "0.500 ± 0.250"
    assert numbers((0.5, nan), ".3f", " ± ") == "0.500 ± –"
    assert numbers((nan, nan), ".3f", " ± ") == numbers((nan,), ".2f") == "–"


def test_json_keeps_every_digit_of_a_small_number():
    table = pd.DataFrame({"p": [1.2345678e-12, 3e-300, 0.1 + 0.2]})
    assert [row["p"] for row in json.loads(as_json(table))] == table["p"].tolist()


def test_json_has_null_for_values_that_are_not_finite():
    table = pd.DataFrame({"a": [1.5, float("nan")], "b": [1, 2], "c": ["x", None]})
    assert json.loads(as_json(table)) == [{"a": 1.5, "b": 1, "c": "x"}, {"a": None, "b": 2, "c": None}]


def test_a_template_is_filled_with_numbers_by_name():
    values = {"mean": 0.5, "sd": float("nan"), "min": 0.25}
    assert filled("{mean} ({min})", values, ".2f") == "0.50 (0.25)"
    assert filled("{mean} ± {sd}", values, ".3f") == "0.500 ± –"
    assert filled("{sd}–{sd}", values, ".3f") == "–"
