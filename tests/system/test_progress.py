from __future__ import annotations

import io
import sys

import pytest

from medseg.system.progress import progress_bar, show_step, steps_shown


class Terminal(io.StringIO):
    """Standard error as a terminal."""

    def isatty(self) -> bool:
        return True


def shown_on(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch, shown: bool | None) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar("checking", shown) as advance:
        advance(1, 4)
        advance(4, 4, "the last")
    return stream.getvalue()


def test_no_bar_without_a_terminal(monkeypatch, capsys):
    assert shown_on(io.StringIO(), monkeypatch, None) == ""
    assert capsys.readouterr().out == ""


def test_a_terminal_shows_a_bar_with_counts(monkeypatch):
    text = shown_on(Terminal(), monkeypatch, None)
    assert "checking" in text
    assert "4/4" in text
    assert "left" in text
    assert "the last" in text


def test_a_bar_can_be_switched_off_on_a_terminal_and_on_elsewhere(monkeypatch):
    assert shown_on(Terminal(), monkeypatch, False) == ""
    assert "4/4" in shown_on(io.StringIO(), monkeypatch, True)


def test_an_error_in_the_block_is_the_callers(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with pytest.raises(KeyError), progress_bar("checking"):
        raise KeyError("x")


def test_steps_deep_inside_advance_the_bar_of_their_block_alone():
    seen = []
    show_step(1, 3, "before")
    with steps_shown(lambda *step: seen.append(step)):
        show_step(1, 3, "windows")
        with steps_shown(lambda *_: None):
            show_step(2, 3, "hidden")
        show_step(3, 3)
    show_step(1, 3, "after")
    assert seen == [(1, 3, "windows"), (3, 3, "")]
