"""Journals of earlier versions can be read, and results are written in the same format."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from medseg.batch_processing import results
from medseg.batch_processing.journal import (
    NAME,
    Journal,
    journals,
    latest,
    next_sequence,
    read,
    written_digests,
)
from medseg.batch_processing.summary import merge_batch
from medseg.errors import ResourceError
from medseg.inference.case_result import CaseResult, ModelIdentity

# Written by `medseg batch cases.csv --model threshold --model tiny.safetensors` of version 0.1.0, on a scan
# with lungs, one without, one that is cut off, and a row of the manifest that is wrong.
EARLIER = Path(__file__).parent / "written_by_0_1_0"
EVENTS = [json.loads(line) for line in (EARLIER / NAME).read_text(encoding="utf-8").splitlines()]
CASES = [event for event in EVENTS if event["event"] == "case"]


@pytest.mark.parametrize("event", CASES, ids=lambda event: f"{event['case']}-{event['model']}")
def test_a_line_of_an_earlier_version_is_read_and_written_the_same(event):
    assert CaseResult.from_json(event).to_json() == event


def test_the_models_of_an_earlier_version_are_read_and_written_the_same():
    models = EVENTS[0]["models"]
    assert [ModelIdentity.from_json(each).to_json() for each in models] == models


def test_the_table_of_an_earlier_journal_has_the_same_cells_and_later_columns(tmp_path):
    known = latest(read([EARLIER / NAME]))
    with (EARLIER / results.NAME).open(newline="", encoding="utf-8") as file:
        before = list(csv.DictReader(file))
    keys = [(row["case"], row["model"]) for row in before]
    assert set(keys) == set(known)
    written = results.write(tmp_path / results.NAME, [known[key] for key in keys])
    with written.open(newline="", encoding="utf-8") as file:
        after = list(csv.DictReader(file))
    assert [{name: row[name] for name in before[0]} for row in after] == before
    assert after[0].keys() - before[0].keys() <= {"study", "input", "qc_flags", "both_lungs_ml"}
    assert results.is_unedited(EARLIER / results.NAME, known.values())


def test_the_last_line_of_a_case_counts():
    first, again = CASES[1], CASES[1] | {"time": CASES[1]["time"] + 1, "warnings": ["later"]}
    assert latest([first, again])["ok", "threshold"].warnings == ("later",)


def test_a_line_without_a_valid_result_is_ignored():
    assert list(latest([CASES[1], {"event": "case", "time": 1.0, "case": "x"}])) == [("ok", "threshold")]


def test_the_order_of_lines_counts_even_if_the_clock_was_ahead(tmp_path):
    path = tmp_path / NAME
    ahead, later = CASES[1] | {"time": CASES[1]["time"] + 86400}, CASES[1] | {"warnings": ["later"]}
    path.write_text("".join(json.dumps(each) + "\n" for each in (ahead, later)))
    assert latest(read([path]))["ok", "threshold"].warnings == ("later",)


def test_sequence_numbers_order_the_journals_of_shards(tmp_path):
    first, second = tmp_path / "journal-2-of-2.jsonl", tmp_path / "journal-1-of-2.jsonl"
    for path, text in ((first, "earlier"), (second, "later")):
        journal = Journal(path, first=next_sequence(read(journals(tmp_path))))
        time = CASES[1]["time"] + (86400 if text == "earlier" else 0)
        journal.append(CASES[1] | {"time": time, "warnings": [text]})
        journal.close()
    assert latest(read(journals(tmp_path)))["ok", "threshold"].warnings == ("later",)


def test_a_journal_that_was_deleted_meanwhile_ends_the_batch(tmp_path):
    journal = Journal(tmp_path / NAME)
    journal.append({"event": "start", "time": 1.0})
    (tmp_path / NAME).unlink()
    with pytest.raises(ResourceError) as refused:
        journal.append({"event": "end", "time": 2.0})
    assert refused.value.reason == "disk"


def test_an_incomplete_line_is_cut_off(tmp_path):
    path = tmp_path / NAME
    path.write_bytes(
        json.dumps(CASES[1]).encode() + b"\n" + b'{"event": "case", "time": 2.0, "ca' + b"x" * 9000
    )
    assert read([path]) == [CASES[1]]
    journal = Journal(path)
    later = CASES[1] | {"time": CASES[1]["time"] + 2}
    journal.append(later)
    journal.close()
    assert read([path]) == [CASES[1], later | {"seq": 1}]
    assert latest(read([path]))["ok", "threshold"].time == later["time"]


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b"null",
        b'{"event": "start", "time": 1}',
        b'{"event": "start", "time": 1, "cases": "all"}',
        b'{"event": "case", "time": 1, "files": []}',
        b'{"event": "case", "time": 1, "case": [], "model": {}, "status": 3}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_lines_of_other_forms_are_ignored(tmp_path, line):
    (tmp_path / NAME).write_bytes(line + b"\n" + json.dumps(CASES[1]).encode() + b"\n")
    assert list(latest(read([tmp_path / NAME]))) == [("ok", "threshold")]
    written_digests(read([tmp_path / NAME]))
    assert merge_batch(tmp_path).results.exists()
