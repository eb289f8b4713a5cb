from pathlib import Path
from traceback import format_exception

import pytest

from medseg.errors import InputRefused, MedsegError, ModelRefused, ResourceError, UsageError, listed


def test_message_is_place_problem_and_remedy_in_three_lines():
    error = InputRefused("12 voxels\n are NaN", where=Path("a.nii"), remedy="replace\nthem", reason="nan")
    assert str(error) == "a.nii:\n12 voxels are NaN\n→ replace them"
    assert (error.problem, error.where, error.reason) == ("12 voxels\n are NaN", "a.nii", "nan")


def test_parts_that_are_absent_take_no_line():
    assert str(MedsegError("just this")) == "just this"
    assert str(MedsegError("this", remedy="do that")) == "this\n→ do that"
    assert MedsegError("this").reason == "error"


@pytest.mark.parametrize(
    ("kind", "code"),
    [(MedsegError, 1), (UsageError, 2), (InputRefused, 3), (ModelRefused, 4), (ResourceError, 5)],
)
def test_exit_codes(kind, code):
    assert kind.exit_code == code
    assert issubclass(kind, MedsegError)


def test_the_text_of_a_file_cannot_control_the_terminal():
    error = InputRefused("space is \x1b[2Jx\x9b1m\u202e", where="a\x07", remedy="b\nc", reason="x")
    assert str(error).splitlines() == ["a\\x07:", "space is \\x1b[2Jx\\x9b1m\\u202e", "→ b c"]
    assert error.problem.isprintable()


def test_a_long_list_of_names_says_how_many_more():
    assert listed("abc") == "a, b, c"
    assert listed(iter("abcde"), 3) == "a, b, c and 2 more"


def test_a_plain_traceback_is_whole():
    try:
        raise InputRefused("bad", reason="x") from ValueError("cause")
    except MedsegError as error:
        text = "".join(format_exception(error))
    assert "ValueError: cause" in text
    assert __file__ in text


def test_a_notebook_names_the_file_that_called_the_cause_and_no_control_characters(tmp_path):
    own = tmp_path / "loading.py"
    own.write_text("import medseg\n\n\ndef load():\n    return medseg.read('missing.nii.gz')\n")
    names: dict = {}
    exec(compile(own.read_text(), own, "exec"), names)
    with pytest.raises(InputRefused) as caught:
        names["load"]()
    assert caught.value._render_traceback_()[-1] == (
        "in line 5 of loading.py: return medseg.read('missing.nii.gz')"
    )
    error = UsageError("no such column")
    error.details = ("a\x1b[31m",)
    error.__cause__ = KeyError("left\x1b")
    assert error._render_traceback_() == [
        "UsageError: no such column",
        "a\\x1b[31m",
        "caused by KeyError: 'left\\x1b'",
    ]
