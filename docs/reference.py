"""Pages that mkdocs makes from the source: the recipes' fields, and the Python interface."""

import inspect
import re
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from mkdocs.structure.files import File, Files
from pydantic import BaseModel

import medseg
from medseg.recipe import Recipe

ROOMS = {
    "inference": "Segmenting",
    "batch_processing": "Many scans",
    "io": "Reading and writing",
    "images": "Images",
    "datasets": "Data sets",
    "recipe": "Recipes",
    "planning": "Planning",
    "cross_validation": "Cross-validation",
    "tuning": "Searching for a better recipe",
    "training": "Training",
    "evaluation": "Evaluating",
    "model_import": "Models of other tools",
    "measurement": "Measuring",
    "visualization": "Looking",
    "reporting": "Reports",
    "phantom": "Phantoms",
    "system": "Notices",
    "errors": "Errors",
}
"""Heading of each room's public names, in the order of the page."""


def on_files(files: Files, config: Any) -> Files:
    """Adds the generated pages: the recipes' fields, the public names, and a page for each of these."""
    pages = {"recipes": recipes(), "python": python()}
    pages |= {f"python/{name}": page_of(name) for name in medseg.__all__}
    for name, text in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def python() -> str:
    """The page that lists every public name with the first line of its docstring."""
    parts = [
        "# Python\n\nEverything is reachable as `medseg.NAME`. Each name is imported when it is first used; "
        "torch and MONAI only where something is segmented or trained.\n"
    ]
    for room, title in ROOMS.items():
        names = [name for name in medseg.__all__ if medseg._HOME[name].split(".")[1] == room]
        parts.append(f"\n## {title}\n\n| name | what |\n|---|---|\n")
        parts += [f"| [`{name}`](python/{name}.md) | {_plain(_first(name))} |\n" for name in names]
    return "".join(parts)


def page_of(name: str) -> str:
    """The page of one public name."""
    options = "    options: {show_root_heading: false, show_root_toc_entry: false}\n"
    return f"# medseg.{name}\n\n::: {medseg._HOME[name]}.{name}\n{options}"


def _first(name: str) -> str:
    """The first paragraph of a docstring on one line."""
    return " ".join((inspect.getdoc(getattr(medseg, name)) or "").split("\n\n")[0].split())


def recipes() -> str:
    """A table for every section of a recipe."""
    parts = [
        "# Recipes\n\nA recipe is one YAML file: `medseg recipe lung_ct > mine.yaml` gives one to change. "
        "Unknown keys are refused; what is left out has the default.\n"
    ]
    seen: set[type] = set()
    waiting: list[tuple[str, type[BaseModel]]] = [("recipe", Recipe)]
    while waiting:
        name, section = waiting.pop(0)
        if section in seen:
            continue
        seen.add(section)
        described = _attributes(section)
        first = (inspect.getdoc(section) or "").split("\n\n")[0].replace("\n", " ")
        parts.append(f"\n## {name}: {section.__name__}\n\n{_plain(first)}\n\n")
        parts.append("| field | default | what |\n|---|---|---|\n")
        for field, info in section.model_fields.items():
            default = "**needed**"
            if not info.is_required():
                default = f"`{_value(info.get_default(call_default_factory=True))}`"
            parts.append(f"| `{field}` | {default} | {_plain(described.get(field, ''))} |\n")
            waiting += [(field, part) for part in _sections(info.annotation)]
    return "".join(parts)


def _attributes(section: type[BaseModel]) -> dict[str, str]:
    """What the docstrings of a class and its parents say of each attribute."""
    found: dict[str, str] = {}
    for cls in reversed(section.__mro__):
        text = (inspect.getdoc(cls) or "") if cls.__doc__ else ""
        block = text.partition("Attributes:\n")[2]
        for match in re.finditer(r"^    (\w+): (.*(?:\n        .*)*)", block, re.MULTILINE):
            found[match[1]] = " ".join(match[2].split())
    return found


def _sections(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType) or get_args(annotation):
        return [part for one in get_args(annotation) if one is not NoneType for part in _sections(one)]
    return []


def _value(value: object) -> str:
    if isinstance(value, BaseModel):
        return getattr(value, "kind", None) or "see below"
    return str(value).replace("|", "\\|")


def _plain(text: str) -> str:
    """Without the markup of docstrings that Markdown has not."""
    text = re.sub(r":\w+:`~?([^`]*)`", r"`\1`", text).replace("``", "`")
    return text.replace("|", "\\|")
