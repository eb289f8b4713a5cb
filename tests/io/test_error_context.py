import pytest

from medseg.errors import InputRefused, InputWarning, first_line
from medseg.io.error_context import refusing


def caught(error):
    with pytest.raises(InputRefused) as info, refusing("a.nii", "NIfTI file"):
        raise error
    return info.value


def test_a_librarys_complaint_becomes_a_refusal():
    error = caught(KeyError("x"))
    assert (error.reason, error.where) == ("unreadable", "a.nii")
    assert error.problem == "not a readable NIfTI file: 'x'"


def test_a_missing_permission_has_its_own_reason():
    assert (
        caught(PermissionError(13, "Permission denied", "/data/b.img")).problem
        == "no permission to read b.img"
    )
    assert caught(PermissionError()).reason == "permission"


def test_our_own_errors_get_their_place():
    assert caught(InputRefused("no", reason="x")).where == "a.nii"
    assert caught(InputRefused("no", where="b", reason="x")).where == "b"


@pytest.mark.parametrize("error", [MemoryError(), InputWarning("w"), KeyboardInterrupt()])
def test_errors_that_are_not_about_the_file_pass_unchanged(error):
    with pytest.raises(type(error)), refusing("a.nii", "NIfTI file"):
        raise error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError(), "ValueError"),
        (ValueError("\n one\ntwo"), "one"),
        (RuntimeError("Exception thrown in ITK\n/a.cxx:1:\nwhy"), "why"),
        (OSError(5, "Input/output error", "/data/Doe"), "Input/output error"),
        (ValueError("x" * 999), "x" * 200),
    ],
)
def test_the_line_that_describes_an_error(error, message):
    assert first_line(error) == message
