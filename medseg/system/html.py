"""HTML from Jinja2 templates with autoescaping."""

from __future__ import annotations

import functools
from importlib import resources

import jinja2
from markupsafe import Markup


def render(package: str, name: str, /, **values: object) -> str:
    """A rendered template.

    Values are escaped, also inside quoted attributes, unless they are :class:`markupsafe.Markup`.
    Inside a ``<script>`` use the filter ``tojson``, which escapes ``<``, ``>`` and ``&``.

    Args:
        package: A package with a folder ``templates``, such as ``medseg.reporting``.
        name: The file in that folder.
        values: The template's variables; a missing one is an error, not an empty text.
    """
    return _environment(package).get_template(name).render(**values)


def own_file(package: str, name: str) -> Markup:
    """A style sheet or script shipped with medseg, marked as safe for inclusion in a template."""
    return Markup(resources.files(package).joinpath(name).read_text(encoding="utf-8"))


@functools.cache
def _environment(package: str) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
