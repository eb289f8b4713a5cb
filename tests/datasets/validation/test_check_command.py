"""The command `medseg check`."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from support.check_cases import changed
from support.commands import invoke
from support.processes import command_code, heavy_imports


def test_the_command_reports_no_problem_in_sound_data(manifest, recipe):
    out, err = invoke("check", manifest, "--recipe", recipe)
    assert out.splitlines()[-1] == "3 cases: 0 errors, 0 warnings"
    assert re.search(r"^value 1 \(right_lung\): \d+ voxels in 3 of 3 cases$", out, re.M)
    assert "opened 3 cases" in err
    assert "error" not in err


def test_the_command_lists_errors_first_and_exits_with_1(manifest, cases, recipe):
    changed(cases[0], np.zeros_like, what="label")
    cases[1].images[0].unlink()
    out, _ = invoke("check", manifest, "--recipe", recipe, code=1)
    lines = out.splitlines()
    assert lines[0].startswith("error    case_1: missing-file: ")
    assert lines[1].startswith("warning  case_0: label-empty: ")
    assert lines[-1] == "3 cases: 1 error, 1 warning"


def test_warnings_alone_exit_with_0(manifest, cases):
    changed(cases[0], np.zeros_like, what="label")
    assert "warning  case_0" in invoke("check", manifest)[0]


def test_json_is_one_object(manifest, cases, recipe):
    cases[1].images[0].unlink()
    report = json.loads(invoke("check", manifest, "--recipe", recipe, "--json", code=1)[0])
    assert (report["cases"], report["errors"], report["warnings"]) == (3, 1, 0)
    (finding,) = report["findings"]
    assert set(finding) == {"case", "severity", "code", "problem", "remedy", "refusal"}
    assert finding["case"] == "case_1"
    assert report["values"][1]["name"] == "right_lung"


def test_a_leak_in_the_manifest_is_a_finding_and_the_scans_are_still_opened(cases, tmp_path):
    lines = ["id,patient,image,label,split"]
    lines += [f"{case.id},p,{case.images[0]},{case.label},{case.split}" for case in cases]
    path = tmp_path / "leak.csv"
    path.write_text("\n".join(lines))
    out, err = invoke("check", path, code=1)
    assert "error    case_2: patient-in-two-splits" in out
    assert "opened 3 cases" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.csv"], "cannot be read"),
        (["{m}", "--recipe", "nope"], "no such recipe"),
        (["{m}", "--split", "test"], "no case has split 'test'"),
    ],
)
def test_invalid_arguments_exit_with_2(manifest, arguments, message):
    assert message in invoke("check", *(text.replace("{m}", str(manifest)) for text in arguments), code=2)[1]


def test_checking_needs_no_torch(manifest, tmp_path):
    assert heavy_imports(command_code("check", str(manifest)), cwd=tmp_path) == []


def test_data_root_locates_the_files(manifest, cases, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert "missing-file" in invoke("check", manifest, "--data-root", elsewhere, code=1)[0]
    for case in cases:
        for path in (*case.images, case.label):
            path.rename(elsewhere / path.name)
    assert "0 errors" in invoke("check", manifest, "--data-root", elsewhere)[0]
