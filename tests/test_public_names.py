"""The flat interface: every name of ``medseg`` resolves, is documented, and is what type checkers see."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import medseg

SOURCE = Path(inspect.getfile(medseg))


def names_for_type_checkers() -> dict[str, str]:
    """Module of each name that the ``if TYPE_CHECKING`` block imports."""
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    blocks = [n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    imports = [n for block in blocks for n in block.body if isinstance(n, ast.ImportFrom)]
    return {alias.asname or alias.name: str(n.module) for n in imports for alias in n.names}


def test_the_three_lists_of_names_agree():
    assert list(medseg.__all__) == sorted(medseg._HOME)
    assert names_for_type_checkers() == medseg._HOME


def test_completion_in_a_shell_offers_every_name():
    assert set(medseg.__all__) <= set(dir(medseg))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = medseg.no_such_name


@pytest.mark.parametrize("name", medseg.__all__)
def test_a_public_name_is_defined_in_the_module_of_the_table(name: str):
    found = getattr(medseg, name)
    assert found.__name__ == name
    assert found.__module__ == medseg._HOME[name]


@pytest.mark.parametrize("name", medseg.__all__)
def test_no_public_name_is_that_of_its_module_or_of_a_room(name: str):
    home = medseg._HOME[name]
    assert name not in home.split(".")
    assert not (SOURCE.parent / name).exists()


@pytest.mark.parametrize("name", medseg.__all__)
def test_a_public_name_has_a_docstring(name: str):
    text = inspect.getdoc(getattr(medseg, name)) or ""
    assert len(text.splitlines()[0]) > 10
