"""HTML from Jinja2 templates in which every value is escaped."""

from __future__ import annotations

import functools
from importlib import resources

import jinja2
from markupsafe import Markup


def render(package: str, name: str, /, **values: object) -> str:
    """The text of a template with its values filled in.

    Values are escaped, also in attributes in quotes. Only :class:`markupsafe.Markup` is put in as it is.
    In a ``<script>`` use the filter ``tojson``, which escapes ``<``, ``>`` and ``&`` as JSON does.

    Args:
        package: The package that has a folder ``templates``, such as ``medseg.reporting``.
        name: A file in it.
        values: What the template names. One that is missing is an error, not an empty text.
    """
    return _environment(package).get_template(name).render(**values)


def own_file(package: str, name: str) -> Markup:
    """A style sheet or script of ours, which a template may contain as it is."""
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
