"""A recipe with the reasons for its numbers, and the YAML that shows both."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from medseg.recipe import Recipe

_WIDTH = 100


@dataclass(frozen=True)
class RecipeDraft:
    """A recipe before it is written.

    Attributes:
        data: The fields that were decided; all others keep their defaults.
        reasons: Why, by the path of a field or section, such as ``prepare.spacing_mm``.
        cautions: What the plan leaves to the user, each as a sentence.
    """

    data: Mapping[str, Any]
    reasons: Mapping[str, str] = field(default_factory=dict)
    cautions: tuple[str, ...] = ()

    @property
    def recipe(self) -> Recipe:
        """The recipe itself.

        Raises:
            UsageError: it is not valid (``recipe-field``).
        """
        return Recipe.checked(self.data, where="plan")

    def yaml(self, *opening: str) -> str:
        """The recipe as YAML with the reasons as comments; :meth:`Recipe.parse` reads it back.

        Args:
            opening: Sentences for the start of the file.
        """
        lines = [line for text in (*opening, *self.cautions) for line in _comment(text, "")]
        return "\n".join((*lines, *self._section(self.data, "", ""))) + "\n"

    def _section(self, data: Mapping[str, Any], path: str, indent: str) -> Iterator[str]:
        for key, value in data.items():
            here = f"{path}.{key}" if path else key
            if here in self.reasons:
                yield from _comment(self.reasons[here], indent)
            line = f"{indent}{key}: {_flow(value)}"
            explained = any(each.startswith(f"{here}.") for each in self.reasons)
            if isinstance(value, Mapping) and (explained or len(line) > _WIDTH):
                yield f"{indent}{key}:"
                yield from self._section(value, here, f"{indent}  ")
            elif isinstance(value, list) and value and isinstance(value[0], Mapping):
                yield f"{indent}{key}:"
                yield from (f"{indent}  - {_flow(each)}" for each in value)
            else:
                yield line


def _flow(value: object) -> str:
    """A value as YAML on one line."""
    dumped = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6)
    return dumped.removesuffix("...\n").rstrip("\n")


def _comment(text: str, indent: str) -> list[str]:
    lines = textwrap.wrap(text, _WIDTH - len(indent) - 2, break_on_hyphens=False)
    return [f"{indent}# {line}" for line in lines]
