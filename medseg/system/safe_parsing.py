"""Plain data from untrusted text files such as recipes and manifests, with limits on size and depth.

Files are measured before they are read, and never run code: YAML tags that create objects are
refused, and so are aliases, with which a short text can expand without bound ("billion laughs").
"""

from __future__ import annotations

import json
import math
import stat
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import yaml

# Recipes are nested four deep, MSD's dataset.json five.
DEEPEST = 64
# Longer numbers mean nothing here; integers of thousands of digits take long to read and cannot be printed.
MOST_DIGITS = 100


def text_of(file: Path, *, most_bytes: int) -> str:
    """The text of a regular file, without the byte order mark that Excel writes.

    Args:
        file: The file; pipes and devices are refused, because reading them might never end.
        most_bytes: The size limit; larger files are refused unread.

    Raises:
        OSError: it cannot be read; ``strerror`` says why.
        UnicodeDecodeError: it is not UTF-8.
    """
    status = file.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(21, "Is a directory")
    if not stat.S_ISREG(status.st_mode):
        raise OSError(0, "not a regular file")
    if status.st_size > most_bytes:
        raise OSError(27, f"{status.st_size} bytes, more than {most_bytes} are not read")
    with file.open("rb") as stream:
        return stream.read(most_bytes + 1).decode("utf-8-sig")


class PlainLoader(yaml.SafeLoader):
    """A safe YAML loader that refuses aliases and duplicate keys."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """The next node; refuses aliases and excessive nesting."""
        if self.check_event(yaml.AliasEvent):
            self._refuse("aliases (*) are not supported: repeat the value")
        self.depth += 1
        if self.depth > DEEPEST:
            self._refuse(f"nested deeper than {DEEPEST}")
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def _refuse(self, problem: str) -> NoReturn:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # the stubs lack it
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of ``node``; refuses duplicate keys."""
        _once(str(key.value) for key, _ in node.value)
        return super().construct_mapping(node, deep=deep)


def _number(loader: PlainLoader, node: yaml.ScalarNode) -> object:
    """The number of a plain scalar; base 60 (``1:30``) is text, as in YAML 1.2, long numbers are errors."""
    text = str(loader.construct_scalar(node))
    if ":" in text:
        return text
    if len(text) > MOST_DIGITS:
        problem = f"a number of {len(text)} characters: at most {MOST_DIGITS} are read"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
    whole = node.tag.endswith(":int")
    return loader.construct_yaml_int(node) if whole else loader.construct_yaml_float(node)


PlainLoader.add_constructor("tag:yaml.org,2002:int", _number)
PlainLoader.add_constructor("tag:yaml.org,2002:float", _number)


def yaml_data(text: str, loader: type[PlainLoader] = PlainLoader) -> object:
    """The plain data of YAML text.

    Raises:
        ValueError: not valid; the message is one line and gives the position.
    """
    try:
        return yaml.load(text, Loader=loader)  # every PlainLoader is a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        mark = getattr(error, "problem_mark", None)
        if mark is not None:
            problem = getattr(error, "problem", None) or "not valid"
            raise ValueError(f"{problem}, line {mark.line + 1}, column {mark.column + 1}") from None
        raise ValueError(" ".join(str(error).split())[:200]) from None


def json_data(text: str, *, deepest: int = DEEPEST) -> object:
    """The plain data of JSON text with unique keys, finite numbers and at most ``deepest`` levels.

    Raises:
        ValueError: not valid; the message gives line and column if known.
    """
    try:
        data = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_not_a_number,
            parse_float=_finite,
            parse_int=_integer,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    level: list[object] = [data]
    for _ in range(deepest):
        level = [inner for each in level for inner in _inside(each)]
        if not level:
            return data
    raise ValueError(f"nested deeper than {deepest}")


def _inside(value: object) -> Iterable[object]:
    held = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (each for each in held if isinstance(each, dict | list))


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    _once(key for key, _ in pairs)
    return dict(pairs)


def _once(keys: Iterable[str]) -> None:
    twice = [key for key, times in Counter(keys).items() if times > 1]
    if twice:
        raise ValueError(f"key {twice[0]!r:.80} appears twice")


def _not_a_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _integer(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} characters: at most {MOST_DIGITS} are read")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text:.40} is too large")
    return value
