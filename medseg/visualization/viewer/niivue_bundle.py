"""NiiVue's JavaScript bundle, taken from the installed package ipyniivue; no copy is in this repository."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from medseg.errors import ResourceError


@cache
def bundle() -> bytes:
    """A JavaScript module that exports the class ``Niivue``.

    The module of ipyniivue exports only a widget, so the minified name of the class is searched for and
    exported as well.

    Raises:
        ResourceError: ipyniivue is not installed (``missing-extra``), or its version bundles NiiVue in an
            unknown way (``viewer``).
    """
    found = find_spec("ipyniivue")
    if found is None or found.origin is None:
        raise ResourceError(
            "the viewer is not installed",
            where="medseg view",
            remedy="pip install 'medseg[view]'",
            reason="missing-extra",
        )
    text = (Path(found.origin).parent / "static" / "widget.js").read_text(encoding="utf-8")
    end = text.find("async attachToCanvas")
    # Without the look-behind, the search would start at every character of long base64 strings: six seconds.
    head = r"(?<![\w$])([A-Za-z_$][\w$]*)=class(?: [\w$]+)?(?: extends [\w$]+)?\{"
    heads = re.findall(head, text[: max(0, end)])
    if not heads:
        raise ResourceError(
            "this version of ipyniivue bundles NiiVue in a way that medseg does not know",
            where=found.origin,
            remedy="pip install 'ipyniivue>=2.4,<2.5'",
            reason="viewer",
        )
    return f"{text}\nexport{{{heads[-1]} as Niivue}};\n".encode()
