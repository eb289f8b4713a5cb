"""The fields of a recipe by their dotted names, read from its JSON schema."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, TypeAlias

from medseg.recipe import Recipe

Schema: TypeAlias = Mapping[str, Any]

_ROOT_ONLY = ("name", "description", "modality", "channels", "labels", "ignore_value", "context", "pipeline")
"""What decides the task itself: recipes that differ here cannot be compared by their Dice."""


class RecipeFields:
    """Every field of a recipe, with the alternatives that its schema allows."""

    @cached_property
    def _schema(self) -> Schema:
        return Recipe.json_schema()

    def at(self, path: str, data: Mapping[str, Any] | None = None) -> list[Schema]:
        """The schemas that a field may have; empty if there is no such field.

        Args:
            path: Dotted name, such as ``train.learning_rate``, or ``network.widths.0`` for part of a list.
            data: A recipe as plain data. Sections of several kinds (network, loss, intensity) are then those
                of its kinds; None allows the fields of every kind.
        """
        *parents, last = path.split(".")
        if not parents and last in _ROOT_ONLY:
            return []
        level: list[tuple[Schema, Any]] = [(self._schema, data)]
        for part in (*parents, last):
            # A kind is a choice among all kinds, whatever the recipe's own one is.
            level = [
                each
                for node, value in level
                for child, inner in _children(node, part, value)
                for each in ((one, inner) for one in self._alternatives(child, inner, part != "kind"))
            ]
        if last == "kind" and data is not None:
            return self.at(path)
        return [node for node, _ in level]

    def names(self) -> list[str]:
        """The dotted names of all fields that may be searched."""
        return sorted(
            {
                name
                for part, child in self._schema["properties"].items()
                if part not in _ROOT_ONLY
                for name in self._names(child, part)
            }
        )

    def kind_fields(self, path: str, kind: str) -> frozenset[str]:
        """The fields of a section (``network``) that its ``kind`` has."""
        nodes = [
            node for node in self.at(path) if kind in _constants([node.get("properties", {}).get("kind", {})])
        ]
        return frozenset(name for node in nodes for name in node["properties"])

    def _names(self, node: Schema, path: str) -> Iterator[str]:
        yield path
        for each in self._alternatives(node, None, True):
            for part, child in each.get("properties", {}).items():
                if child.get("writeOnly"):
                    continue
                yield from self._names(child, f"{path}.{part}")

    def _alternatives(self, node: Schema, data: Any, resolved: bool) -> list[Schema]:
        if "$ref" in node:
            target = self._schema["$defs"][str(node["$ref"]).rpartition("/")[2]]
            return self._alternatives(target, data, resolved)
        if "discriminator" in node:
            mapping = node["discriminator"]["mapping"]
            kind = data.get("kind") if isinstance(data, Mapping) else None
            chosen = [mapping[kind]] if resolved and kind in mapping else list(mapping.values())
            return [one for ref in chosen for one in self._alternatives({"$ref": ref}, data, resolved)]
        for key in ("anyOf", "oneOf"):
            if key in node:
                return [one for each in node[key] for one in self._alternatives(each, data, resolved)]
        return [] if node.get("type") == "null" else [node]


def _children(node: Schema, part: str, value: Any) -> Iterator[tuple[Schema, Any]]:
    """The schema and the present value of one part of a section or list."""
    if node.get("properties", {}).get(part, {}).get("writeOnly"):
        return  # stands for other fields, which are searched themselves
    if part in node.get("properties", {}):
        yield node["properties"][part], value.get(part) if isinstance(value, Mapping) else None
    elif node.get("type") == "array" and part.isdecimal():
        first = node.get("prefixItems", [])
        items = [first[int(part)]] if int(part) < len(first) else [node["items"]] if "items" in node else []
        for item in items:
            yield item, None


def _constants(nodes: list[Schema]) -> list[Any]:
    """The values that schemas list."""
    return [
        value for node in nodes for value in ([node["const"]] if "const" in node else node.get("enum", []))
    ]


def listed_values(nodes: list[Schema]) -> list[Any] | None:
    """The values among which a field of text chooses; None if it takes other values too."""
    plain = [node for node in nodes if "const" not in node and "enum" not in node]
    if any(node.get("type") == "string" for node in plain):
        return None
    return _constants(nodes)


def is_numeric(nodes: list[Schema]) -> bool:
    """Whether a field takes numbers."""
    return any(node.get("type") in ("integer", "number") for node in nodes)


def is_whole(nodes: list[Schema]) -> bool:
    """Whether a field takes whole numbers only."""
    return not any(node.get("type") == "number" for node in nodes)
