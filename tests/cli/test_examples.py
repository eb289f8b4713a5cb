"""The examples of `--help` come first, and each is a command that is understood."""

import shlex

import pytest
import typer
from support.commands import output

from medseg.cli.app import app
from medseg.cli.examples import EXAMPLES

COMMANDS = typer.main.get_command(app).commands


@pytest.mark.parametrize(("name", "example"), [(name, each) for name in EXAMPLES for each in EXAMPLES[name]])
def test_an_example_is_understood_and_shown(name, example):
    _, command, *words = shlex.split(example.partition(" > ")[0])
    assert command == name
    COMMANDS[name].make_context(name, words)  # raises for an unknown option or too few arguments
    assert example in COMMANDS[name].help


def test_every_command_has_an_example():
    assert set(EXAMPLES) == set(COMMANDS)


def test_examples_stand_before_the_options():
    shown = " ".join(output("view", "--help").split())
    assert shown.index("medseg view chest.nii.gz lungs.nii.gz") < shown.index("--port")
    assert "medseg phantom phantom_data --cases 1" in " ".join(output("--help").split())
