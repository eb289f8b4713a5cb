"""The reason codes in the package's source, found without running it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import medseg
from medseg import errors

PACKAGE = Path(medseg.__file__).parent
EXIT_CODES = {
    name: kind.exit_code
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.MedsegError)
}
# `medseg.io.decoder.worker` answers with a code that `medseg.io.decoder.client` raises as InputRefused.
_OF_DICTS = "InputRefused"
_NOTICES = ("notify", "Notice")


@dataclass(frozen=True)
class Use:
    """One place that gives a reason code.

    Attributes:
        reason: The code; None for an error of medseg made without one.
        exit_code: Exit code of the error raised there; None if the source does not show it.
        where: Module and line.
    """

    reason: str | None
    exit_code: int | None
    where: str


@dataclass(frozen=True)
class _Helper:
    """A function that takes a reason and makes the error: ``wrong(problem, where, remedy, reason)``."""

    place: int
    default: str | None
    prefix: str
    exit_code: int | None


def notice_reasons() -> set[str]:
    """The reason codes of the notices that medseg gives; those of a variable are of docs/checks.md."""
    calls = (
        node
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and _name(node.func) in _NOTICES and node.args
    )
    return {reason for call in calls for reason in _texts(call.args[0])}


def uses() -> list[Use]:
    """Every place in medseg that gives a reason code or should."""
    trees = {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}
    own = {path: dict(_helpers(tree)) for path, tree in trees.items()}
    everywhere = {name: helper for each in own.values() for name, helper in each.items()}
    found = []
    for path, tree in trees.items():
        place = str(path.relative_to(PACKAGE))
        for node in ast.walk(tree):
            if isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    if isinstance(key, ast.Constant) and key.value == "reason":
                        found += [
                            Use(r, EXIT_CODES[_OF_DICTS], f"{place}:{node.lineno}") for r in _texts(value)
                        ]
            if not isinstance(node, ast.Call):
                continue
            name = _name(node.func)
            if name in _NOTICES:
                continue
            helper = own[path].get(name) or everywhere.get(name)
            if name in EXIT_CODES:
                given = next((k.value for k in node.keywords if k.arg == "reason"), None)
                reasons = [None] if given is None else _texts(given)
                if given is None and any(k.arg is None for k in node.keywords):
                    reasons = []  # **facts
                found += [Use(r, EXIT_CODES[name], f"{place}:{node.lineno}") for r in reasons]
            elif helper is not None:
                found += [
                    Use(helper.prefix + r, helper.exit_code, f"{place}:{node.lineno}")
                    for r in _given(node, helper)
                ]
            else:
                for word in node.keywords:
                    if word.arg == "reason":
                        found += [Use(r, None, f"{place}:{node.lineno}") for r in _texts(word.value)]
    return found


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    """Functions of a module with a parameter ``reason``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name != "__init__":
            names = [a.arg for a in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            if "reason" in names:
                yield node


def _helpers(tree: ast.AST) -> Iterator[tuple[str, _Helper]]:
    for node in _functions(tree):
        names = [a.arg for a in (*node.args.posonlyargs, *node.args.args)]
        place = names.index("reason") if "reason" in names else -1
        if place >= 0 and names[0] == "self":
            place -= 1
        defaults = dict(zip(reversed(names), reversed(node.args.defaults), strict=False))
        only = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
        defaults |= {a.arg: d for a, d in only if d is not None}
        default = defaults.get("reason")
        prefix, code = "", None
        for call in (n for n in ast.walk(node) if isinstance(n, ast.Call)):
            name = _name(call.func)
            if name in EXIT_CODES:
                code = EXIT_CODES[name]
                for word in call.keywords:
                    if word.arg == "reason" and isinstance(word.value, ast.JoinedStr):
                        first = word.value.values[0]
                        prefix = str(first.value) if isinstance(first, ast.Constant) else ""
        text = default.value if isinstance(default, ast.Constant) else None
        yield node.name, _Helper(place, text, prefix, code)


def _given(call: ast.Call, helper: _Helper) -> list[str]:
    for word in call.keywords:
        if word.arg == "reason":
            return _texts(word.value)
    if 0 <= helper.place < len(call.args):
        return _texts(call.args[helper.place])
    return [helper.default] if helper.default else []


def _texts(value: ast.expr) -> list[str]:
    """The codes an expression can be: a text, or a choice between texts; none for a variable."""
    if isinstance(value, ast.Constant):
        return [value.value] if isinstance(value.value, str) and value.value else []
    if isinstance(value, ast.IfExp):
        return _texts(value.body) + _texts(value.orelse)
    return []


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
