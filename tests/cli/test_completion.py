"""Tab completion, through the protocol of the shells' scripts (click's manual, "Shell Completion")."""

import sys

import pytest
from support.commands import output

from medseg.cli.app import COMMANDS
from medseg.cli.options import model_names
from medseg.inference.model_files import shipped


def completed(monkeypatch, words):
    """What bash would offer for the last word."""
    # The script of the shell names the program; pytest is another.
    monkeypatch.setattr(sys.modules["__main__"], "__package__", None)
    monkeypatch.setenv("_MEDSEG_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    return output().split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("medseg ", set(COMMANDS)),
        ("medseg se", {"segment", "serve"}),
        ("medseg segment --mod", {"--model"}),
        ("medseg segment --model thr", {"threshold"}),
        ("medseg batch scans --model lung_ct_c", {"lung_ct_context"}),
        ("medseg info scan.nii --trust ", {"sform", "qform", "pixdim"}),
        ("medseg segment --model runs/first/mo", set()),  # then bash offers files
    ],
)
def test_commands_options_and_names_are_offered(monkeypatch, words, offered):
    assert set(completed(monkeypatch, words)) == offered


@pytest.mark.parametrize("command", ["segment", "batch", "evaluate", "serve"])
def test_names_of_models_are_offered_wherever_one_is_chosen(monkeypatch, command):
    assert {"threshold", *shipped()} <= set(completed(monkeypatch, f"medseg {command} --model "))
    assert model_names("nothing") == []


def test_help_names_the_installation():
    assert "--install-completion" in output("--help")
