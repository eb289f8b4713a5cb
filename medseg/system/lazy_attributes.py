"""Attributes of a package that are imported when they are first used."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any


def lazy_attribute(package: str, modules: Mapping[str, str], name: str) -> Any:
    """The value of a name that a package takes from one of its modules, for the package's ``__getattr__``.

    The package keeps the value, so that it is looked up once.

    Args:
        package: Name of the package.
        modules: Full name of the module of each name.
        name: The attribute that was asked for.

    Raises:
        AttributeError: the package has no such name.
    """
    if name not in modules:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    value = getattr(import_module(modules[name]), name)
    setattr(sys.modules[package], name, value)
    return value
