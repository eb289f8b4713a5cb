"""Help shows choices and defaults, and a value that is no choice exits with code 2 before a file is read."""

from typing import get_args

import pytest
import typer
from rich.text import Text
from support.commands import output

from medseg.batch_processing.settings import bytes_of
from medseg.cli.app import app
from medseg.cli.options import SplitOrAll
from medseg.datasets.manifest import Split
from medseg.errors import UsageError
from medseg.io import DICOM_FORMATS, DicomFormat

COMMANDS = typer.main.get_command(app).commands


def test_options_offer_the_choices_of_the_library():
    assert get_args(DicomFormat) == tuple(DICOM_FORMATS)
    assert get_args(SplitOrAll) == (*get_args(Split), "all")


@pytest.mark.parametrize(
    ("words", "choices"),
    [
        (("segment", "no.nii", "-o", "m.nii", "--trust", "x"), ("sform", "qform", "pixdim")),
        (("segment", "no.nii", "-o", "m.dcm", "--format", "x"), ("dicom-seg", "rtstruct")),
        (("convert", "no.nii", "m.dcm", "--format", "x"), ("dicom-seg", "rtstruct")),
        (("batch", "no", "-o", "out", "--dicom", "x"), ("dicom-seg", "rtstruct")),
        (("batch", "no", "-o", "out", "--trust", "x"), ("sform", "qform", "pixdim")),
        (("evaluate", "no.csv", "-o", "out", "--split", "x"), ("train", "val", "test", "all")),
        (("check", "no.csv", "--split", "x"), ("train", "val", "test", "all")),
        (("train", "r.yaml", "no.csv", "-o", "out", "--device", "x"), ("auto", "cpu", "gpu")),
        (("segment", "no.nii", "-o", "m.nii", "--engine", "x"), ("auto", "torch", "openvino", "onnx")),
    ],
)
def test_a_value_that_is_not_a_choice_is_refused_with_the_list_of_choices(
    words, choices, tmp_path, monkeypatch, capsys
):
    import sys

    from medseg import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["medseg", *words])
    with pytest.raises(SystemExit) as stopped:
        cli.run_command()
    assert stopped.value.code == 2
    message = capsys.readouterr().err
    assert all(choice in message for choice in choices)


def test_a_size_is_in_powers_of_1024():
    found = [bytes_of(text) for text in (None, "8G", "1500M", "1.5 GiB", "2kb", "1T", "123")]
    assert found == [None, 8 * 2**30, 1500 * 2**20, 3 * 2**29, 2048, 2**40, 123]


@pytest.mark.parametrize("text", ["", "G", "8,5G", "8G-4", "8GiB and more", "-8G", "8 000M", "nan", "8X"])
def test_a_malformed_size_is_refused(text):
    with pytest.raises(UsageError) as refused:
        bytes_of(text)
    assert refused.value.where == "--memory"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_shows_every_word_of_an_option(name):
    """Text in brackets, such as ``[default: 3]``, is markup to the printer of the help, which drops it."""
    for parameter in COMMANDS[name].params:
        text = getattr(parameter, "help", None) or ""
        assert Text.from_markup(text).plain == text, parameter.name


def test_defaults_that_depend_on_something_are_shown():
    shown = " ".join(output("batch", "--help").replace("│", " ").split())
    for default in ("lung_ct_context", "one per core, as memory allows", "free memory", "all"):
        assert f"[default: ({default})]" in shown
