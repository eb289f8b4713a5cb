"""The examples in the docstrings of public names run as written, and give what they say."""

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
    """The examples of a name, and of the methods of a class."""
    found = getattr(medseg, name)
    finder = doctest.DocTestFinder(recurse=inspect.isclass(found), exclude_empty=True)
    globs = {**vars(sys.modules[found.__module__]), "medseg": medseg}
    return [test for test in finder.find(found, name, globs=globs) if test.examples]


@pytest.mark.parametrize("name", medseg.__all__)
def test_examples_give_what_they_say(name: str, desk: Path):
    told: list[str] = []
    for test in examples(name):
        doctest.DocTestRunner(optionflags=FLAGS).run(test, out=told.append)
    assert not told, "".join(told)
