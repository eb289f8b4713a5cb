"""Pages that mkdocs makes from the source: the recipes' fields, and the Python interface."""

import inspect
import re
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from mkdocs.structure.files import File, Files
from pydantic import BaseModel

from medseg.recipe import Recipe

MODULES = {
    "The four things": [
        "medseg",
        "medseg.inference.segmenter",
        "medseg.batch_processing.runner",
        "medseg.training.trainer",
        "medseg.evaluation.evaluator",
    ],
    "Values": [
        "medseg.images.grid",
        "medseg.images.volume",
        "medseg.images.label",
        "medseg.datasets.manifest",
        "medseg.inference.model",
    ],
    "Reading and writing": ["medseg.io"],
    "Steps": [
        "medseg.preprocessing.transforms",
        "medseg.inference.sliding_window",
        "medseg.inference.native_grid",
        "medseg.inference.postprocessing",
        "medseg.evaluation.metrics",
    ],
    "Looking": ["medseg.visualization.overlays", "medseg.reporting", "medseg.visualization.viewer"],
    "Errors": ["medseg.errors"],
}


def on_files(files: Files, config: Any) -> Files:
    """Adds the generated pages."""
    for name, text in (("recipes", recipes()), ("python", python())):
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def python() -> str:
    """A page with the docstrings of the public modules."""
    parts = ["# Python\n"]
    for title, modules in MODULES.items():
        parts.append(f"\n## {title}\n")
        for module in modules:
            parts.append(f"\n::: {module}\n    options: {{heading_level: 3}}\n")
    return "".join(parts)


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
        told = _attributes(section)
        first = (inspect.getdoc(section) or "").split("\n\n")[0].replace("\n", " ")
        parts.append(f"\n## {name}: {section.__name__}\n\n{_plain(first)}\n\n")
        parts.append("| field | default | what |\n|---|---|---|\n")
        for field, info in section.model_fields.items():
            default = "**needed**"
            if not info.is_required():
                default = f"`{_value(info.get_default(call_default_factory=True))}`"
            parts.append(f"| `{field}` | {default} | {_plain(told.get(field, ''))} |\n")
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
