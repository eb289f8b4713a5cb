"""NiiVue's bundle, taken from the installed package ipyniivue; nothing of it lies in this repository."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from medseg.errors import ResourceError


@cache
def bundle() -> bytes:
    """A JavaScript module that exports the class ``Niivue``.

    ipyniivue's own module exports a widget only, so the name its packer gave to the class is looked
    for, and exported too.

    Raises:
        ResourceError: ipyniivue is not installed (``missing-extra``), or of a version whose module is
            packed in another way (``viewer``).
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
    heads = re.findall(r"([A-Za-z_$][\w$]*)=class(?: [\w$]+)?(?: extends [\w$]+)?\{", text[: max(0, end)])
    if not heads:
        raise ResourceError(
            "this version of ipyniivue is packed in a way that medseg does not know",
            where=found.origin,
            remedy="pip install 'ipyniivue>=2.4,<2.5'",
            reason="viewer",
        )
    return f"{text}\nexport{{{heads[-1]} as Niivue}};\n".encode()
