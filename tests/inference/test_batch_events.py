"""Round trips of the start and the end of a batch through JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medseg.inference.batch_events import BatchEnd, BatchStart
from medseg.inference.case_result import ModelIdentity

JOURNAL = Path(__file__).parents[1] / "batch_processing" / "written_by_0_1_0" / "journal.jsonl"
MODEL = ModelIdentity("lung", "ab" * 32, "torch 2", {"lungs": (1, 2)})


def test_json_round_trip():
    start = BatchStart("0.1.0", 7, (MODEL,), {"trust": None}, "medseg batch x", "3-of-10", 12, "host", 1.5)
    assert BatchStart.from_json(json.loads(json.dumps(start.to_json()))) == start
    end = BatchEnd(done=3, skipped=2, failed=1, left=1, edited=1, time=2.5)
    assert BatchEnd.from_json(json.loads(json.dumps(end.to_json()))) == end


def test_events_of_an_earlier_version_are_read_and_written_the_same():
    events = [json.loads(line) for line in JOURNAL.read_text().splitlines()]
    start, end = events[0], events[-1]
    assert BatchStart.from_json(start).cases == 4
    assert BatchStart.from_json(start).to_json() == start
    assert BatchEnd.from_json(end) == BatchEnd(done=2, skipped=0, failed=2, left=0, time=end["time"])
    assert BatchEnd.from_json(end).to_json() == {**end, "edited": 0}


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"cases": 3},
        {"medseg": "1", "cases": "all"},
        {"medseg": "1", "models": [3]},
        {"medseg": "1", "models": [{}]},
    ],
)
def test_a_damaged_start_is_refused(value):
    with pytest.raises(ValueError, match=r"medseg|cases|model"):
        BatchStart.from_json({"event": "start", **value})


def test_a_damaged_end_is_refused():
    with pytest.raises(ValueError, match="left"):
        BatchEnd.from_json({"event": "end", "done": 1, "skipped": 0, "failed": 0})


def test_progress_has_the_counts_but_neither_models_nor_options():
    event = BatchStart("0.1.0", 7, (MODEL,), host="host").progress(skipped=3, failed=1, todo=4)
    assert list(event) == [
        "event",
        "time",
        "cases",
        "shard",
        "pid",
        "host",
        "medseg",
        "skipped",
        "failed_before",
        "todo",
    ]
    assert (event["skipped"], event["todo"]) == (3, 4)
    end = BatchEnd(done=3, skipped=2, failed=1, left=1).progress(results="out/results.csv")
    assert list(end) == ["event", "done", "skipped", "failed", "left", "edited", "results"]
