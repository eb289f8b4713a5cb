"""Round trips of a case's result through JSON and through a table."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest

from medseg.errors import InputRefused
from medseg.images.mask_quality import REGISTRY
from medseg.inference.case_result import CaseResult, ModelIdentity
from medseg.system.notices import Notice

MODEL = ModelIdentity("lung_ct", "ab" * 32, "torch 2", {"right_lung": (1, 3), "left_lung": (2,)})
DONE = CaseResult(
    "c1",
    "lung_ct",
    "done",
    model_sha256="ab" * 32,
    engine="torch 2",
    input_sha256="cd" * 32,
    modality="CT",
    volumes_ml={"right_lung": 2000.5, "left_lung": 0.0},
    intensities={
        "right_lung": {"voxels": 9, "mean": -800.0, "sd": 3.5, "p5": -810.0, "p50": -800.0, "p95": -790.0},
        "left_lung": dict.fromkeys(("voxels", "mean", "sd", "p5", "p50", "p95")) | {"voxels": 0},
    },
    qc_flags={
        "right_lung": {"components": 2, "at_border": True},
        "left_lung": {"components": 0, "at_border": False},
    },
    airless_ml={"right_lung": 12.5, "left_lung": 0.0},
    entropy={"lungs": 0.25},
    mask="masks/c1.nii.gz",
    files={"masks/c1.nii.gz": "ef" * 32},
    notices=(
        Notice("no-lung", "no lung was found", remedy="look whether the scan shows a chest"),
        Notice("spacing", "slices are uneven", "other.nii"),
    ),
    seconds={"read": 0.1, "prepare": 0.2, "segment": 0.3, "write": 0.4},
    patient="p1",
    study="s1",
    inputs=("/scans/p1/s1/a.nii", "/scans/p1/s1/b.nii"),
    time=1.5,
    stamp="0123",
    options="4567",
)
FAILED = CaseResult.failure(
    "c2", MODEL, InputRefused("it is cut off", where="x.nii", reason="unreadable"), lasting=True
)


@pytest.mark.parametrize("result", [DONE, FAILED, replace(DONE, thumbnail="UklGRg==")])
def test_json_round_trip(result):
    assert CaseResult.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_counts_of_voxels_stay_whole_numbers():
    # 5 == 5.0 in Python, but not in a journal: its lines are compared byte for byte.
    result = CaseResult("a", "m", "done", intensities={"lung": {"voxels": 5, "mean": None}})
    voxels = CaseResult.from_json(result.to_json()).intensities["lung"]["voxels"]
    assert isinstance(voxels, int)


def test_json_has_the_notices_as_text_and_with_their_reasons():
    """The texts are what journals have had from the beginning."""
    found = DONE.to_json()
    assert found["warnings"] == [
        "no lung was found: look whether the scan shows a chest",
        "other.nii: slices are uneven",
    ]
    assert [notice["reason"] for notice in found["notices"]] == ["no-lung", "spacing"]


def test_notices_without_a_reason_are_those_of_earlier_journals():
    earlier = {name: value for name, value in DONE.to_json().items() if name != "notices"}
    assert CaseResult.from_json(earlier).warnings == DONE.warnings


def test_a_failure_records_its_reason_and_model():
    assert (FAILED.status, FAILED.reason, FAILED.lasting) == ("failed", "unreadable", True)
    assert FAILED.message == "x.nii: it is cut off"
    assert (FAILED.model, FAILED.model_sha256, FAILED.engine) == ("lung_ct", "ab" * 32, "torch 2")
    assert FAILED.to_json()["message"] == "x.nii: it is cut off"
    assert "volumes_ml" not in FAILED.to_json()


def test_table_round_trip():
    """Everything the report needs survives; digests of files, for example, are not in the table."""
    rows = [DONE.to_row(), FAILED.to_row()]
    text = io.StringIO()
    table = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), restval="")
    table.writeheader()
    table.writerows(rows)
    text.seek(0)
    done, failed = (CaseResult.from_row(row) for row in csv.DictReader(text))
    known = {"mean": -800.0, "sd": 3.5, "p5": -810.0, "p50": -800.0, "p95": -790.0}
    not_in_it = {"modality": None, "files": {}, "time": 0.0, "stamp": None, "options": ""}
    texts = tuple(
        Notice("", text)
        for text in (
            "no lung was found: look whether the scan shows a chest",
            "other.nii: slices are uneven",
        )
    )
    both = {"volumes_ml": {**DONE.volumes_ml, "both_lungs": 2000.5}}  # 2000.5 + 0
    both["airless_ml"] = {**DONE.airless_ml, "both_lungs": 12.5}
    assert done == replace(DONE, intensities={"right_lung": known}, notices=texts, **not_in_it, **both)
    assert rows[0]["qc_flags"] == (
        "right_lung in 2 parts; right_lung touches the border of the scan; left_lung is not there"
    )
    assert "both_lungs_ml" not in replace(DONE, volumes_ml={"right_lung": 1.0}).to_row()
    assert done.warnings == DONE.warnings
    assert failed == replace(FAILED, lasting=False)


def test_a_table_saved_by_another_program_is_read():
    row = dict.fromkeys(("case", "model", "status", "reason", "message", "warnings"), "")
    row |= {"lung_components": "2.0", "lung_at_border": "True"}
    assert CaseResult.from_row(row).qc_flags == {"lung": {"components": 2, "at_border": True}}


def test_a_flag_whose_name_ends_in_another_flags_name_is_read_as_itself(monkeypatch):
    monkeypatch.setitem(REGISTRY, "mask_at_border", REGISTRY["at_border"])
    row = dict.fromkeys(("case", "model", "status", "reason", "message", "warnings"), "")
    row |= {"lung_at_border": "True", "lung_mask_at_border": "False"}
    assert CaseResult.from_row(row).qc_flags == {"lung": {"at_border": True, "mask_at_border": False}}


@pytest.mark.parametrize(
    "change",
    [
        {"status": "half"},
        {"status": None},
        {"case": 3},
        {"volumes_ml": [1, 2]},
        {"entropy": {"lung": "much"}},
        {"notices": [{"reason": "no-lung"}]},
        {"notices": "spacing"},
    ],
)
def test_json_that_is_not_a_result_is_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        CaseResult.from_json(DONE.to_json() | change)


def test_a_result_without_an_id_is_refused():
    with pytest.raises(ValueError, match="case"):
        CaseResult.from_json({"event": "case", "model": "m", "status": "done"})


def test_a_model_identity_survives_json():
    assert ModelIdentity.from_json(json.loads(json.dumps(MODEL.to_json()))) == MODEL
