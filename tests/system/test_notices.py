"""Notices reach who collects them, and nobody else."""

import json
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from medseg.errors import InputWarning
from medseg.system.notices import Notice, collect_notices, in_context, notify, send


def test_json_round_trip():
    for notice in (Notice("a", "b"), Notice("a", "b", path="c"), Notice("a", "b", "c", "d")):
        assert Notice.from_json(json.loads(json.dumps(notice.to_json()))) == notice
    assert Notice("a", "b").to_json() == {"reason": "a", "text": "b"}


@pytest.mark.parametrize("value", [None, [], "a", {"reason": "a"}, {"reason": "a", "text": 1}])
def test_invalid_json_is_refused(value):
    with pytest.raises(ValueError, match="notice"):
        Notice.from_json(value)


def test_text_is_one_line_without_control_characters():
    assert str(Notice("a", "odd\x1b[2J\nthing", "scan.nii", "look")) == r"scan.nii: odd\x1b[2J thing: look"


def test_a_collector_gets_each_notice_once_in_order_and_no_warning_is_given():
    with warnings.catch_warnings(record=True) as recorded, collect_notices() as notices:
        warnings.simplefilter("always")
        for text in ("first", "second", "first"):
            notify("odd", text, path="scan.nii", remedy="look")
    assert [each.text for each in notices] == ["first", "second"]
    assert notices[0] == Notice("odd", "first", "scan.nii", "look")
    assert recorded == []


def test_the_inner_collector_keeps_its_notices_until_they_are_sent_on():
    with collect_notices() as outer:
        with collect_notices() as inner:
            notify("odd", "within")
        assert outer == []
        send(inner)
        notify("odd", "after")
    assert [each.text for each in outer] == ["within", "after"]


def test_without_a_collector_a_warning_is_given_at_the_callers_line_every_time():
    with warnings.catch_warnings(record=True) as recorded:
        warnings.resetwarnings()
        warnings.simplefilter("default")  # Python's own: once a line
        for _ in range(2):
            notify("odd", "replaced", path="scan.nii")
    assert [str(each.message) for each in recorded] == ["scan.nii: replaced"] * 2
    assert {(each.category, each.filename) for each in recorded} == {(InputWarning, __file__)}


def test_warnings_as_errors_raise():
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputWarning)
        with pytest.raises(InputWarning, match="odd"):
            notify("odd", "odd")


def test_threads_do_not_share_notices():
    both = threading.Barrier(2)

    def work(name):
        with collect_notices() as notices:
            both.wait(10)
            notify("odd", name)
            both.wait(10)
        return [each.text for each in notices]

    with ThreadPoolExecutor(2) as pool, collect_notices() as outer:
        assert list(pool.map(work, ["left", "right"])) == [["left"], ["right"]]
    assert outer == []


def test_a_thread_that_works_for_its_caller_sends_to_the_callers_collector():
    both = threading.Barrier(2)

    def work(text):
        both.wait(10)
        notify("odd", text)

    with ThreadPoolExecutor(2) as pool, collect_notices() as notices:
        list(pool.map(in_context(work), ["left", "right"]))
    assert sorted(each.text for each in notices) == ["left", "right"]


def test_notices_are_shown_at_once_and_passed_on_if_asked():
    shown = []
    with collect_notices(show=shown.append) as outer, collect_notices(pass_on=True) as inner:
        notify("odd", "within")
        assert shown == outer == inner == [Notice("odd", "within")]
    with pytest.warns(InputWarning, match="alone"), collect_notices(pass_on=True) as inner:
        notify("odd", "alone")
    assert inner == [Notice("odd", "alone")]
