"""The start and the end of a batch, as shared by its journal, its progress and the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from medseg.inference.case_result import ModelIdentity


@dataclass(frozen=True)
class BatchStart:
    """The start of a run: the first event in its journal.

    Attributes:
        medseg: The version of medseg.
        cases: Number of cases, those done before included.
        models: The models, in the order in which each case is segmented.
        options: The options that decide the outputs, by name.
        command: The command line; empty for a call from Python.
        shard: The shard, such as ``3-of-10``; empty for the whole batch.
        pid: Process id of the run.
        host: Name of the machine.
        time: Seconds since 1970.
    """

    medseg: str
    cases: int = 0
    models: tuple[ModelIdentity, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    shard: str = ""
    pid: int = 0
    host: str = ""
    time: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The event as a JSON object: a line of the journal."""
        models = [model.to_json() for model in self.models]
        return self._process() | {"command": self.command, "models": models, "options": dict(self.options)}

    def progress(self, *, skipped: int, failed: int, todo: int) -> dict[str, Any]:
        """The event as a JSON object for whoever follows the batch.

        Args:
            skipped: Number of cases that an earlier run has finished.
            failed: How many of these failed.
            todo: Number of cases to do.
        """
        return self._process() | {"skipped": skipped, "failed_before": failed, "todo": todo}

    def _process(self) -> dict[str, Any]:
        names = ("time", "cases", "shard", "pid", "host", "medseg")
        return {"event": "start"} | {name: getattr(self, name) for name in names}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> BatchStart:
        """The event that :meth:`to_json` wrote, possibly in an earlier version of medseg.

        Raises:
            ValueError: The version of medseg is missing, or a field has the wrong type.
        """
        known = {each.name: value[each.name] for each in fields(cls) if each.name in value}
        try:
            known["models"] = tuple(map(ModelIdentity.from_json, known.get("models", ())))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"a model of the batch is damaged: {error}") from error
        return _start().validate_python(known)


@dataclass(frozen=True)
class BatchEnd:
    """The end of a run: the last event in its journal, unless the run was killed.

    Attributes:
        done: Number of cases segmented in this run.
        skipped: Number of cases done before.
        failed: Number of failed cases, of this run or an earlier one.
        left: Number of cases not reached.
        edited: Number of cases whose mask was edited and kept.
        time: Seconds since 1970.
    """

    done: int
    skipped: int
    failed: int
    left: int
    edited: int = 0
    time: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The event as a JSON object: a line of the journal."""
        return {"event": "end", "time": self.time} | self._counts()

    def progress(self, *, results: str) -> dict[str, Any]:
        """The event as a JSON object for whoever follows the batch; ``results`` is the path of the table."""
        return {"event": "end"} | self._counts() | {"results": results}

    def _counts(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in ("done", "skipped", "failed", "left", "edited")}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> BatchEnd:
        """The event that :meth:`to_json` wrote, possibly in an earlier version of medseg.

        Raises:
            ValueError: A count is missing or not a number.
        """
        return _end().validate_python(
            {each.name: value[each.name] for each in fields(cls) if each.name in value}
        )


@cache
def _start() -> TypeAdapter[BatchStart]:
    return TypeAdapter(BatchStart)


@cache
def _end() -> TypeAdapter[BatchEnd]:
    return TypeAdapter(BatchEnd)
