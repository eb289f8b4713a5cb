"""The layout of the tests: it mirrors the package, and only `tests/support` is shared."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import medseg

TESTS = Path(__file__).parent
PACKAGE = Path(medseg.__file__).parent
FILES = sorted(path.relative_to(TESTS) for path in TESTS.rglob("test_*.py"))
ELSEWHERE = {"contracts", "benchmarks"}  # tests of tables of extensions, and of the repository's benchmarks


def imported(tree: ast.AST) -> set[str]:
    """Every dotted name that a module imports."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            names |= {f"{node.module or ''}.{alias.name}" for alias in node.names} | {node.module or ""}
    return names


def belongs_to_a_test(name: str) -> bool:
    """Whether a dotted name is, or lies in, a test module or `conftest`."""
    return any(part.startswith("test_") or part == "conftest" for part in name.split("."))


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_no_test_module_is_imported(path):
    assert [name for name in imported(ast.parse(path.read_text("utf-8"))) if belongs_to_a_test(name)] == []


@pytest.mark.parametrize(
    "line",
    [
        "from cli.test_cli import both",
        "import test_docs",
        "from tests.cli import test_cli",
        "from conftest import x",
    ],
)
def test_an_import_of_a_test_module_is_noticed(line):
    assert any(belongs_to_a_test(name) for name in imported(ast.parse(line)))


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_folder_of_tests_is_one_of_the_package(path):
    assert path.parts[0] in ELSEWHERE or (PACKAGE / path.parent).is_dir()
