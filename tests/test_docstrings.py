"""Every public name has examples in its docstring that run as written and give the output they show."""

from __future__ import annotations

import doctest
import inspect
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.desk import lay_out

import medseg

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Iterator[Path]:
    """The working folder of all examples; they may write into it."""
    folder, before = lay_out(tmp_path_factory.mktemp("desk")), Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def examples(name: str) -> list[doctest.DocTest]:
    """The examples of a name, including those of a class's methods."""
    value = getattr(medseg, name)
    finder = doctest.DocTestFinder(recurse=inspect.isclass(value), exclude_empty=True)
    globs = {**vars(sys.modules[value.__module__]), "medseg": medseg}
    return [test for test in finder.find(value, name, globs=globs) if test.examples]


@pytest.mark.parametrize("name", medseg.__all__)
def test_every_public_name_has_examples_and_they_run(name: str, desk: Path):
    tests = examples(name)
    assert any(not each.options.get(doctest.SKIP) for test in tests for each in test.examples)
    failures: list[str] = []
    for test in tests:
        doctest.DocTestRunner(optionflags=FLAGS).run(test, out=failures.append)
    assert not failures, "".join(failures)
