"""The search space of a study: which fields of a recipe vary, and between which values."""

from __future__ import annotations

import copy
import difflib
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from medseg.errors import UsageError
from medseg.recipe import Recipe, digest
from medseg.system.safe_parsing import text_of, yaml_data
from medseg.system.validation_words import validation_words
from medseg.tuning.parameter import Choice, Parameter, Range, as_stored
from medseg.tuning.recipe_fields import RecipeFields, is_numeric, is_whole, listed_values

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import BaseTrial

_BYTES = 256 << 10
_RANGE = ("low", "high", "log", "step")
_FIELDS = RecipeFields()


@dataclass(frozen=True)
class SearchSpace:
    """The fields of a recipe that a study varies.

    Attributes:
        parameters: What each field may be, by its dotted name.

    Example:
        >>> recipe = medseg.Recipe.read("lung_ct")
        >>> medseg.SearchSpace.checked({"train.optimizer": ["adamw", "sgd"]}, recipe).start(recipe)
        {'train.optimizer': 'adamw'}
    """

    parameters: dict[str, Parameter]

    @classmethod
    def read(cls, path: str | Path, recipe: Recipe) -> SearchSpace:
        """The search space in a YAML file.

        Raises:
            UsageError: the file cannot be read, or something in it does not fit recipes (``tune-space``).
        """
        try:
            data = yaml_data(text_of(Path(path), most_bytes=_BYTES))
        except (OSError, ValueError) as error:
            cause = getattr(error, "strerror", None) or error
            raise _refused(f"cannot be read: {cause}", path, "give a YAML file of fields") from None
        return cls.checked(data, recipe, where=path)

    @classmethod
    def checked(cls, data: object, recipe: Recipe, *, where: str | Path = "space") -> SearchSpace:
        """The search space in plain data, compared with the schema of recipes.

        Args:
            data: For each dotted name of a field either ``{low, high, log, step}`` or a list of choices.
            recipe: The recipe that is varied.
            where: Source of the data, for errors.

        Raises:
            UsageError: there is no such field, or a bound or choice is not one of its values
                (``tune-space``).
        """
        if not isinstance(data, Mapping) or not data:
            raise _refused(
                "must have at least one field", where, "write for example train.weight_decay: [0, 1e-4]"
            )
        space = cls({str(name): _parameter(str(name), each, where) for name, each in data.items()})
        space._check_overlaps(where)
        variants = list(space._variants(recipe))
        for name, parameter in space.parameters.items():
            if not name.endswith(".kind"):
                _check_values(name, parameter, variants, where)
        return space

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of the content."""
        return digest(self.plain())

    def plain(self) -> dict[str, Any]:
        """The content as plain data."""
        return {
            name: list(each.values) if isinstance(each, Choice) else asdict(each)
            for name, each in sorted(self.parameters.items())
        }

    def distributions(self) -> dict[str, BaseDistribution]:
        """The fields for Optuna."""
        return {name: each.distribution() for name, each in self.parameters.items()}

    def suggest(self, trial: BaseTrial, recipe: Recipe) -> dict[str, Any]:
        """The values of a trial by field, without the fields that its kinds of network and loss lack."""
        values: dict[str, Any] = {}
        data = recipe.model_dump(mode="json")
        for name, parameter in self._in_order():
            if _FIELDS.at(name, data):
                values[name] = parameter.suggest(trial, name)
                _set(data, name, values[name])
        return values

    def start(self, recipe: Recipe) -> dict[str, Any]:
        """The recipe's own values, as the study keeps them, as far as they lie in the space."""
        data = recipe.model_dump(mode="json")
        own = {
            name: parameter.encoded(own_value(recipe, name))
            for name, parameter in self._in_order()
            if _FIELDS.at(name, data)
        }
        return {name: value for name, value in own.items() if value is not None}

    def applied(self, recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
        """The recipe with other values of some fields.

        Raises:
            UsageError: the values do not fit together (``recipe-field``).
        """
        data = recipe.model_dump(mode="json")
        for name, value in values.items():
            _set(data, name, value)
        return Recipe.checked(data, where="the recipe of the trial")

    def _in_order(self) -> list[tuple[str, Parameter]]:
        """Kinds first, because they decide which other fields there are."""
        return sorted(self.parameters.items(), key=lambda item: (not item[0].endswith(".kind"), item[0]))

    def _variants(self, recipe: Recipe) -> Iterator[dict[str, Any]]:
        """The recipe as plain data, with each combination of the kinds in the space."""
        kinds = {n: p.examples() for n, p in self.parameters.items() if n.endswith(".kind")}
        own = recipe.model_dump(mode="json")
        combinations = [
            {},
            *(dict(zip(kinds, each, strict=True)) for each in itertools.product(*kinds.values())),
        ]
        for combination in combinations:
            data = copy.deepcopy(own)
            for name, value in combination.items():
                _set(data, name, value)
            yield data

    def _check_overlaps(self, where: str | Path) -> None:
        for name in self.parameters:
            inner = [other for other in self.parameters if other.startswith(f"{name}.")]
            if inner:
                raise _refused(f"{name} and {inner[0]} overlap", where, "search one of them")


def _parameter(name: str, data: object, where: str | Path) -> Parameter:
    nodes = _FIELDS.at(name)
    if not nodes:
        raise _refused(f"{name}: recipes have no such field to search", where, _nearest(name))
    if isinstance(data, list):
        return _choice(name, data, where)
    if not isinstance(data, Mapping):
        raise _refused(
            f"{name}: {data!r:.60} is neither a range nor a list",
            where,
            "write {low: 1, high: 8} or [1, 2, 4]",
        )
    if not is_numeric(nodes):
        raise _refused(f"{name} is not a number, so that it has no range", where, "give a list of its values")
    unknown = sorted(set(map(str, data)) - set(_RANGE))
    if unknown or not {"low", "high"} <= set(data):
        problem = f"a range has no {unknown[0]!r}" if unknown else "a range needs low and high"
        raise _refused(f"{name}: {problem}", where, f"its parts are {', '.join(_RANGE)}")
    return _range(name, data, is_whole(nodes), where)


def _choice(name: str, data: list[Any], where: str | Path) -> Choice:
    listed = listed_values(_FIELDS.at(name))
    for value in data:
        if isinstance(value, str) and listed and value not in listed:
            near = difflib.get_close_matches(value, map(str, listed), 1, 0.5)
            remedy = f"did you mean {near[0]}?" if near else f"choose among {', '.join(map(str, listed))}"
            raise _refused(f"{name}: {value!r} is not one of its values", where, remedy)
    kept = [as_stored(value) for value in data]
    if not data or len(set(map(repr, kept))) < len(kept):
        raise _refused(
            f"{name}: {'no choice' if not data else 'a choice is given twice'}", where, "correct it"
        )
    return Choice(tuple(data))


def _range(name: str, data: Mapping[str, Any], whole: bool, where: str | Path) -> Range:
    numbers = {key: _number(name, key, data[key], where) for key in ("low", "high", "step") if key in data}
    log, step = data.get("log", False), numbers.get("step")
    low, high = numbers["low"], numbers["high"]
    problem = None
    if whole and any(value != int(value) for value in numbers.values()):
        problem = "takes whole numbers only"
    elif not isinstance(log, bool):
        problem = f"log is {log!r}, neither true nor false"
    elif low >= high:
        problem = f"low {low:g} is not below high {high:g}"
    elif log and low <= 0:
        problem = f"log needs low above 0, not {low:g}"
    elif step is not None and (log or not 0 < step <= high - low):
        problem = "log and step exclude each other" if log else f"step {step:g} does not fit into the range"
    if problem:
        raise _refused(f"{name}: {problem}", where, "correct the range")
    if whole:
        low, high, step = int(low), int(high), None if step is None else int(step)
    return Range(low, high, bool(log), step, whole)


def _number(name: str, key: str, value: object, where: str | Path) -> float:
    try:
        # YAML reads 1e-4 as text.
        number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise _refused(f"{name}: {key} is {value!r:.60}, not a number", where, "give a number")
    return number


def _check_values(name: str, parameter: Parameter, variants: list[dict[str, Any]], where: str | Path) -> None:
    """Refuses values that a field never takes; values that do not fit others are a trial's business."""
    present = [data for data in variants if _FIELDS.at(name, data)]
    if not present:
        remedy = f"add the kind that has it: {name.split('.')[0]}.kind: [...]"
        raise _refused(f"{name}: neither the recipe's kind nor a searched one has this field", where, remedy)
    for value in parameter.examples():
        problems = [_problem(data, name, value) for data in present]
        if all(problems):
            raise _refused(f"{name}: {problems[0]} (got {value!r:.60})", where, "correct the search space")


def _problem(data: dict[str, Any], name: str, value: object) -> str | None:
    """Why the field never takes this value; None if it does, at least with other values of other fields."""
    changed = copy.deepcopy(data)
    try:
        _set(changed, name, value)
        Recipe.model_validate(changed)
    except ValidationError as error:
        # A rule of several fields ("value_error") may hold with other values of the others.
        schema = [each for each in error.errors() if each["type"] != "value_error"]
        return validation_words(schema[0]) if schema else None
    except (IndexError, KeyError, TypeError):
        return "the recipe's list has no such place"
    return None


def _set(data: dict[str, Any], path: str, value: Any) -> None:
    """Changes one field. Another kind of a section drops the fields that it lacks."""
    *parents, last = path.split(".")
    section: Any = data
    for part in parents:
        if isinstance(section, list):
            section = section[int(part)]
        else:
            if section.get(part) is None:
                section[part] = {}
            section = section[part]
    if isinstance(section, list):
        section[int(last)] = value
        return
    if last == "kind" and section.get("kind") != value:
        known = _FIELDS.kind_fields(".".join(parents), value)
        for name in [name for name in section if name not in known]:
            del section[name]
    section[last] = copy.deepcopy(value)


def own_value(recipe: Recipe, path: str) -> Any:
    """A recipe's value of a field, as plain data; None if it has no such field.

    Includes fields that are left out of the recipe's YAML while they have their default.
    """
    value: Any = recipe
    for part in path.split("."):
        try:
            value = value[int(part)] if isinstance(value, tuple) else getattr(value, part)
        except (AttributeError, IndexError, ValueError):
            return None
    return to_jsonable_python(value)


def _nearest(name: str) -> str:
    names = _FIELDS.names()
    near = difflib.get_close_matches(name, names, 1, 0.5)
    if not near:  # only the last part was written
        near = [each for each in names if each.rpartition(".")[2] == name.rpartition(".")[2]][:1]
    return f"did you mean {near[0]}?" if near else "`medseg recipe --schema` lists all fields"


def _refused(problem: str, where: str | Path, remedy: str) -> UsageError:
    return UsageError(problem, where=where, remedy=remedy, reason="tune-space")


def default_space(recipe: Recipe, *, quick: bool = False) -> SearchSpace:
    """The search space for a recipe if none is given.

    The learning rate (a fifth to five times the recipe's) and the augmentation matter most for every network;
    a longer search also varies the weight decay, the share of patches on labels, and dropout where the
    network has it.

    Args:
        recipe: The recipe to vary.
        quick: Only learning rate and augmentation.
    """
    rate = recipe.train.learning_rate
    data: dict[str, Any] = {
        "train.learning_rate": {"low": rate / 5, "high": rate * 5, "log": True},
        "augment": ["none", "light", "full"],
    }
    if not quick:
        data["train.weight_decay"] = {"low": 1e-6, "high": 1e-2, "log": True}
        data["train.foreground_fraction"] = {"low": 0.3, "high": 0.9}
        if hasattr(recipe.network, "dropout"):
            data["network.dropout"] = {"low": 0.0, "high": 0.3}
    return SearchSpace.checked(data, recipe, where="the default space")
