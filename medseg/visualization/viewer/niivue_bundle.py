"""NiiVue's JavaScript bundle, taken from the installed package ipyniivue; no copy is in this repository."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from medseg.errors import ResourceError

VERSIONS = "2.4"
"""Versions of ipyniivue with which the viewer is tested; a newer one may name or do things differently."""


@cache
def bundle() -> bytes:
    """A JavaScript module that exports the class ``Niivue``.

    The module of ipyniivue exports only a widget, so the class that has ``attachToCanvas`` is exported as
    well; its minified name differs between builds.

    Raises:
        ResourceError: ipyniivue is not installed (``missing-extra``), or its version is not one of `VERSIONS`
            (``viewer``).
    """
    found = find_spec("ipyniivue")
    if found is None or found.origin is None:
        raise ResourceError(
            "the viewer is not installed",
            where="medseg view",
            remedy="pip install 'medseg[view]'",
            reason="missing-extra",
        )
    installed = _version()
    if not f"{installed}.".startswith(f"{VERSIONS}."):
        raise _unknown(f"ipyniivue {installed or 'of an unknown version'} is installed", found.origin)
    text = (Path(found.origin).parent / "static" / "widget.js").read_text(encoding="utf-8")
    start = text.rfind("=class", 0, max(0, text.find("async attachToCanvas")))
    name = text[:start][-8:].replace("{", " ").replace(";", " ").replace(",", " ").split(" ")[-1]
    if start < 0 or not name.replace("$", "_").isidentifier():
        raise _unknown(f"the bundle of ipyniivue {installed} has no class for the viewer", found.origin)
    return f"{text}\nexport{{{name} as Niivue}};\n".encode()


def _version() -> str:
    try:
        return version("ipyniivue")
    except PackageNotFoundError:
        return ""


def _unknown(problem: str, origin: str) -> ResourceError:
    return ResourceError(
        f"{problem}, but the viewer needs {VERSIONS}",
        where=origin,
        remedy=f"pip install 'ipyniivue=={VERSIONS}.*'",
        reason="viewer",
    )
