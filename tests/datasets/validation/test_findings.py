"""Findings: their order, their text, and which of them are errors."""

from __future__ import annotations

import numpy as np
import pytest
from support.check_cases import RECIPE, changed, found, with_

from medseg.datasets import validation as checking
from medseg.datasets.validation import (
    check,
    refuse,
)
from medseg.errors import InputRefused


def test_errors_come_first_in_the_order_of_the_manifest(make):
    cases = make("val", "val", "val")
    cases[2].images[0].unlink()
    changed(cases[0], np.zeros_like, what="label")
    cases[1].images[0].unlink()
    assert found(cases) == [
        ("case_1", "missing-file"),
        ("case_2", "missing-file"),
        (None, "no-training-case"),
        ("case_0", "label-empty"),
    ]
    assert check(cases, RECIPE) == check(cases, RECIPE)


def test_only_the_given_split_is_opened(cases):
    cases[2].images[0].unlink()
    calls: list[tuple[int, int]] = []
    report = check(cases, RECIPE, split="train", progress=lambda *numbers: calls.append(numbers))
    assert (report.cases, report.findings, calls) == (2, (), [(1, 2), (2, 2)])
    shared = [with_(case, patient="p") for case in cases]
    assert [f.code for f in check(shared, split="train").findings] == ["patient-in-two-splits"]


def test_quoted_file_contents_become_one_line_without_control_characters():
    message = checking.findings.finding("image-unreadable", "a\nb\x1b[31m  c", "x")
    assert message.problem == "a b\\x1b[31m c"
    assert str(message).startswith("x: image-unreadable: a b")
    assert str(checking.findings.finding("no-validation-case", "y", None)).startswith("all cases: ")


def test_errors_are_refused_and_warnings_are_not(cases):
    changed(cases[0], np.zeros_like, what="label")
    refuse(check(cases, RECIPE).findings)
    cases[0].images[0].unlink()
    cases[1].images[0].unlink()
    with pytest.raises(InputRefused, match="missing-file") as caught:
        refuse(check(cases, RECIPE).findings)
    assert caught.value.reason == "data-errors"
    assert caught.value.where == "case_0"
    assert "and 1 more" in caught.value.problem
    assert "medseg check" in str(caught.value.remedy)
    with pytest.raises(InputRefused) as caught:
        refuse([checking.findings.finding("no-training-case", "none", None)])
    assert caught.value.where == "manifest"
