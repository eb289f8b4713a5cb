"""The shape of the package: the contents of its root, and the size of files and functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

import medseg

PACKAGE = Path(medseg.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES, MOST_PARAMETERS, MEDIAN_LINES = 80, 8, 150


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Without self and cls."""
    names = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def test_the_root_holds_the_public_names_the_errors_and_the_command_alone() -> None:
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py", "errors.py"}


def test_half_of_the_files_fit_on_a_few_screens() -> None:
    assert median(len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES) <= MEDIAN_LINES


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_functions_are_short_and_take_few_arguments(path: Path) -> None:
    # Command definitions list all options of a command, so they may be long.
    command = path.is_relative_to(PACKAGE / "cli")
    for node in functions(path):
        assert node.end_lineno is not None
        assert node.end_lineno - node.lineno < MOST_LINES or command, f"{node.name} is too long"
        assert parameters(node) <= MOST_PARAMETERS or command, f"{node.name} takes too many arguments"
