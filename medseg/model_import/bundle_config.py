"""``inference.json`` of a MONAI bundle, read as data: references are followed, nothing is evaluated."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.errors import ModelRefused
from medseg.inference.safetensors_header import shown
from medseg.model_import.checkpoint import refused
from medseg.model_import.nnunet_plans import json_object
from medseg.system.safe_parsing import text_of, yaml_data

_REFERENCE = re.compile(r"@[A-Za-z_]\w*(?:(?:::|#)\w+)*")
_TARGET = re.compile(r"(?:monai\.(?:\w+\.)*)?([A-Za-z]\w*)")
_BYTES = 4 << 20
_DEEPEST = 16


@dataclass(frozen=True)
class Component:
    """A component with the arguments that the configuration gives it.

    Attributes:
        name: Its class, such as ``Spacingd``.
        at: Where it stands in the configuration.
        given: Its arguments, as they are written.
        config: The configuration.
    """

    name: str
    at: str
    given: Mapping[str, Any] = field(repr=False)
    config: BundleConfig = field(repr=False)

    def arguments(self, ignored: frozenset[str] = frozenset(), **defaults: Any) -> dict[str, Any]:
        """The values of the arguments that are known; others are refused by name.

        Args:
            ignored: Arguments without effect on the mask, which are not read.
            **defaults: The known arguments, and their values if they are not given.
        """
        unknown = sorted(self.given.keys() - defaults.keys() - ignored)
        if unknown:
            raise self.refusal(f"the argument {shown(str(unknown[0]))} of {self.name} is not supported")
        return {
            name: self.config.value(self.given[name], f"{self.at}.{name}") if name in self.given else default
            for name, default in defaults.items()
        }

    def refusal(self, problem: str) -> ModelRefused:
        """The refusal of this component."""
        return self.config.refusal(problem, self.at)


@dataclass(frozen=True)
class BundleConfig:
    """The configuration of a bundle.

    Attributes:
        path: Its file.
        data: Its content.
    """

    path: Path
    data: Mapping[str, Any] = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> BundleConfig:
        """The configuration in a JSON or YAML file.

        Raises:
            ModelRefused: not one (``import-plans``).
        """
        if path.suffix == ".json":
            return cls(path, json_object(path))
        try:
            data = yaml_data(text_of(path, most_bytes=_BYTES))
        except (OSError, ValueError) as error:
            problem = getattr(error, "strerror", None) or str(error)
            raise refused(path, f"not valid YAML: {problem:.120}", "import-plans") from None
        if not isinstance(data, dict):
            raise refused(path, "not a table", "import-plans")
        return cls(path, data)

    def refusal(self, problem: str, at: str) -> ModelRefused:
        """The refusal of something in the configuration."""
        return refused(self.path, f"{shown(at)}: {problem}", "import-plans")

    def value(self, value: Any, at: str, depth: int = 0) -> Any:
        """A value with its references followed.

        ``@name`` and ``$@name`` refer to another value; ``$`` before a literal, such as ``$None``, is that
        literal. All other expressions and macros (``%``) are refused unevaluated.
        """
        if depth > _DEEPEST:
            raise self.refusal("references lead in a circle or too deep", at)
        if isinstance(value, list):
            return [self.value(each, f"{at}[{n}]", depth + 1) for n, each in enumerate(value)]
        if isinstance(value, dict):
            return {name: self.value(each, f"{at}.{name}", depth + 1) for name, each in value.items()}
        if not isinstance(value, str) or not value.startswith(("@", "$", "%")):
            return value
        text = value.removeprefix("$").strip() if value.startswith("$") else value
        if _REFERENCE.fullmatch(text):
            return self.value(self._referred(text, at), at, depth + 1)
        try:
            if value.startswith("$") and len(text) < 200:
                return ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            pass
        raise self.refusal(f"the expression {shown(value[:80])} is not evaluated and not supported", at)

    def component(self, value: Any, at: str) -> Component:
        """The component that a value describes."""
        for _ in range(_DEEPEST):
            if not (isinstance(value, str) and _REFERENCE.fullmatch(value)):
                break
            value = self._referred(value, at)
        if not isinstance(value, dict) or not isinstance(value.get("_target_"), str):
            raise self.refusal("not a component with a _target_", at)
        name = _TARGET.fullmatch(value["_target_"])
        if name is None:
            raise self.refusal(f"{shown(value['_target_'][:80])} is not a class of MONAI", at)
        given = {str(key): each for key, each in value.items() if key != "_target_"}
        special = sorted(key for key in given if key.startswith("_") and key not in ("_desc_", "_disabled_"))
        if special:
            raise self.refusal(f"{shown(special[0])} is not supported", at)
        given.pop("_desc_", None)
        return Component(name[1], at, given, self)

    def transforms(self, section: str) -> list[Component]:
        """The transforms of a section, those in nested ``Compose`` in their place, without disabled ones."""
        return self._flat(self.component(self._section(section), section), 0)

    def _flat(self, found: Component, depth: int) -> list[Component]:
        given = dict(found.given)
        if self.value(given.pop("_disabled_", False), f"{found.at}._disabled_") is not False:
            return []
        if found.name != "Compose":
            return [Component(found.name, found.at, given, self)]
        at = f"{found.at}.transforms"
        listed = given.pop("transforms", [])
        for _ in range(_DEEPEST):
            if not (isinstance(listed, str) and _REFERENCE.fullmatch(listed)):
                break
            listed = self._referred(listed, at)
        if given.keys() - {"map_items", "unpack_items", "log_stats"} or not isinstance(listed, list):
            raise found.refusal("a Compose with more than a list of transforms is not supported")
        if depth > _DEEPEST:
            raise found.refusal("nested too deep")
        parts = (self.component(each, f"{at}[{number}]") for number, each in enumerate(listed))
        return [each for part in parts for each in self._flat(part, depth + 1)]

    def _section(self, name: str) -> Any:
        if name not in self.data:
            raise self.refusal("there is no such section", name)
        return self.data[name]

    def _referred(self, reference: str, at: str) -> Any:
        found: Any = self.data
        for part in re.split("::|#", reference[1:]):
            if isinstance(found, dict) and part in found:
                found = found[part]
            elif isinstance(found, list) and part.isdigit() and int(part) < len(found):
                found = found[int(part)]
            else:
                raise self.refusal(f"{shown(reference[:80])} refers to nothing", at)
        return found
