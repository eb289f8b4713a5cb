"""What became of one case of a batch, from the worker to the journal, the table and the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from medseg.errors import MedsegError
from medseg.images.mask_quality import REGISTRY
from medseg.system.notices import Notice

STAGES = ("read", "prepare", "segment", "write")
"""Of which the seconds are measured."""

_STATISTICS = ("mean", "sd", "p5", "p50", "p95")
_MADE_BY = ("engine", "model_sha256", "input_sha256")
_BETWEEN_WARNINGS = " | "


@dataclass(frozen=True)
class ModelIdentity:
    """Which model or method made a mask.

    Attributes:
        name: Distinct among the models of a batch.
        sha256: Hexadecimal SHA-256 of everything that decides the mask.
        engine: What computes it, with its version.
        labels: The integers of each label of the masks, the first of which is painted.
    """

    name: str
    sha256: str = ""
    engine: str = ""
    labels: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The model as a JSON object."""
        labels = {name: list(values) for name, values in self.labels.items()}
        return {"model": self.name, "model_sha256": self.sha256, "engine": self.engine, "labels": labels}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ModelIdentity:
        """The model that :meth:`to_json` wrote.

        Raises:
            KeyError: It has no name.
        """
        labels = {name: tuple(values) for name, values in value.get("labels", {}).items()}
        return cls(value["model"], value.get("model_sha256", ""), value.get("engine", ""), labels)


@dataclass(frozen=True)
class CaseResult:
    """One case, segmented by one model or failed. Never patient data but the ``patient`` of the manifest.

    Attributes:
        case: Its id, which names the files.
        model: Of the model, see :class:`ModelIdentity`.
        status: ``done`` or ``failed``.
        reason: A code of docs/refusals.md; empty when done.
        message: Why it failed, in one line; empty when done.
        lasting: Whether a failed case would fail again, so that it is tried again only when asked for.
        model_sha256: Of the model.
        engine: Of the model.
        input_sha256: Of the bytes of the scan's files; empty where they were not read.
        modality: That the scan tells, such as ``CT``; None if none.
        volumes_ml: Of each label of the mask.
        intensities: Of the scan within each label: voxels, mean, sd, p5, p50 and p95, in HU for CT; a number
            that is not defined is None.
        qc_flags: Of each label, see :func:`medseg.images.mask_quality.qc_flags`.
        entropy: Of each label of the network that was found, in bits.
        mask: Its file, relative to the folder of the outputs; empty where it failed.
        files: SHA-256 of every file that was written, by its path in that folder.
        notices: What is unusual about the scan or the mask, without the path of the scan. Of a table, and of
            a journal of version 0.1.0, only the texts are known: their reason is empty.
        seconds: Spent in each of `STAGES`.
        patient: Of the manifest; empty where it names none.
        time: When the batch knew of it, in seconds since 1970.
        stamp: Digest of names, sizes and times of the input; None where it is not there.
        options: Digest of the options that decide the outputs.
        thumbnail: A small picture as base 64; not kept in the journal.
    """

    case: str
    model: str
    status: str
    reason: str = ""
    message: str = ""
    lasting: bool = False
    model_sha256: str = ""
    engine: str = ""
    input_sha256: str = ""
    modality: str | None = None
    volumes_ml: Mapping[str, float] = field(default_factory=dict)
    intensities: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    qc_flags: Mapping[str, Mapping[str, int | bool]] = field(default_factory=dict)
    entropy: Mapping[str, float] = field(default_factory=dict)
    mask: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    patient: str = ""
    time: float = 0.0
    stamp: str | None = None
    options: str = ""
    thumbnail: str = field(default="", repr=False)

    @classmethod
    def failure(cls, case: str, model: ModelIdentity, error: MedsegError, *, lasting: bool) -> CaseResult:
        """The result of a case of which nothing is known but why it failed."""
        return cls(
            case,
            model.name,
            "failed",
            error.reason,
            " ".join(str(error).split()),
            lasting,
            model.sha256,
            model.engine,
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """The notices as text, each once."""
        return tuple(dict.fromkeys(map(str, self.notices)))

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels of the mask of which something is known."""
        return tuple({**self.volumes_ml, **self.qc_flags, **self.intensities})

    def to_json(self) -> dict[str, Any]:
        """The result as a JSON object: a line of the journal."""
        found: dict[str, Any] = {
            "event": "case",
            "time": self.time,
            "patient": self.patient,
            "case": self.case,
            "model": self.model,
            "status": self.status,
            "reason": self.reason,
        }
        if self.status == "failed":
            found |= {"message": self.message, "lasting": self.lasting}
        else:
            found |= {
                "modality": self.modality,
                "volumes_ml": dict(self.volumes_ml),
                "intensities": {label: dict(values) for label, values in self.intensities.items()},
                "signs": {label: dict(flags) for label, flags in self.qc_flags.items()},
                "entropy": dict(self.entropy),
                "mask": self.mask,
                "files": dict(self.files),
            }
        found |= {
            "model_sha256": self.model_sha256,
            "engine": self.engine,
            "input_sha256": self.input_sha256,
            "warnings": list(self.warnings),
            "seconds": dict(self.seconds),
            "stamp": self.stamp,
            "options": self.options,
        }
        notices = [notice.to_json() for notice in self.notices if notice.reason]
        extra = {"notices": notices, "thumbnail": self.thumbnail}
        return found | {name: value for name, value in extra.items() if value}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> CaseResult:
        """The result that :meth:`to_json` wrote, also in an earlier version of medseg.

        Raises:
            ValueError: It is no result: the id, the model or the status is missing, or a field is of the
                wrong type.
        """
        # Journals name the flags "signs" since the first version.
        named = {"qc_flags" if name == "signs" else name: each for name, each in value.items()}
        known = {each.name: named[each.name] for each in fields(cls) if each.name in named}
        if "notices" not in known:
            known["notices"] = [{"reason": "", "text": text} for text in named.get("warnings", ())]
        found = _checked().validate_python(known)
        if found.status not in ("done", "failed"):
            raise ValueError(f"the status of case {found.case} is {found.status!r}, not done or failed")
        return found

    def to_row(self) -> dict[str, object]:
        """The result as a row of ``results.csv``, by column; what is not known is empty or has no column."""
        names = ("case", "patient", "model", "status", "reason", "message", "mask")
        row: dict[str, object] = {name: getattr(self, name) for name in names}
        for label, volume_ml in self.volumes_ml.items():
            row[f"{label}_ml"] = volume_ml
            row |= {f"{label}_{name}": value for name, value in self.qc_flags.get(label, {}).items()}
            inside = self.intensities.get(label, {})
            row |= {f"{label}_{name}": inside.get(name) for name in _STATISTICS if name in inside}
        row |= {f"{label}_entropy": bits for label, bits in self.entropy.items()}
        row["warnings"] = _BETWEEN_WARNINGS.join(self.warnings)
        row |= {f"seconds_{stage}": self.seconds.get(stage) for stage in STAGES}
        row |= {name: getattr(self, name) for name in _MADE_BY}
        return {name: "" if value is None else value for name, value in row.items()}

    @classmethod
    def from_row(cls, row: Mapping[str, str]) -> CaseResult:
        """The result as far as a row of ``results.csv`` tells it, read back from text.

        Raises:
            KeyError: A column is missing.
            ValueError: A number is none.
        """
        volumes_ml: dict[str, float] = {}
        entropy: dict[str, float] = {}
        flags: dict[str, dict[str, int | bool]] = {}
        intensities: dict[str, dict[str, float | None]] = {}
        for name, text in row.items():
            if not text:
                continue
            label, _, column = name.rpartition("_")
            flag = next((each for each in REGISTRY if name.endswith(f"_{each}")), None)
            if flag is not None:
                flags.setdefault(name.removesuffix(f"_{flag}"), {})[flag] = _flag(text)
            elif column == "ml":
                volumes_ml[label] = float(text)
            elif column == "entropy":
                entropy[label] = float(text)
            elif column in _STATISTICS:
                intensities.setdefault(label, {})[column] = float(text)
        seconds = {stage: float(row[f"seconds_{stage}"]) for stage in STAGES if row.get(f"seconds_{stage}")}
        return cls(
            row["case"],
            row["model"],
            row["status"],
            row["reason"],
            row["message"],
            volumes_ml=volumes_ml,
            intensities=intensities,
            qc_flags=flags,
            entropy=entropy,
            notices=tuple(Notice("", text) for text in row["warnings"].split(_BETWEEN_WARNINGS) if text),
            seconds=seconds,
            mask=row.get("mask", ""),
            patient=row.get("patient", ""),
            engine=row.get("engine", ""),
            model_sha256=row.get("model_sha256", ""),
            input_sha256=row.get("input_sha256", ""),
        )


def _flag(text: str) -> int | bool:
    """A flag from its text; a table tool may have written 1.0 for 1."""
    return text == "True" if text in ("True", "False") else int(float(text))


@cache
def _checked() -> TypeAdapter[CaseResult]:
    return TypeAdapter(CaseResult)
