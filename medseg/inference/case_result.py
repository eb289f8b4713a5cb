"""The result of one case of a batch, as shared by the worker, the journal, the table and the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

from pydantic import TypeAdapter

from medseg.errors import MedsegError
from medseg.images.mask_quality import REGISTRY, descriptions
from medseg.system.csv_cells import rounded
from medseg.system.notices import Notice

STAGES = ("read", "prepare", "segment", "write")
"""The stages of a case whose duration is measured."""

WAIT = "wait"
"""Key of `CaseResult.seconds`: how long the networks of a process had nothing to do before the case."""

_STATISTICS = ("mean", "sd", "p5", "p50", "p95")
_MADE_BY = ("engine", "model_sha256", "input_sha256")
_BETWEEN_WARNINGS = " | "
_AIRLESS = "_airless_ml"
_SIDES = ("right_lung", "left_lung")


@dataclass(frozen=True)
class ModelIdentity:
    """The model or method that made a mask.

    Attributes:
        name: A name that is unique among the models of a batch.
        sha256: Hexadecimal SHA-256 of everything that decides the mask.
        engine: The engine that runs it, with its version.
        labels: The integers of each label; the first one is the value written to masks.
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
            KeyError: The object has no name.
        """
        labels = {name: tuple(values) for name, values in value.get("labels", {}).items()}
        return cls(value["model"], value.get("model_sha256", ""), value.get("engine", ""), labels)


@dataclass(frozen=True)
class CaseResult:
    """One case that a model has segmented or failed on.

    It holds no patient data except ``patient``, which comes from the manifest.

    Attributes:
        case: The case id, from which its files are named.
        model: Name of the model, see :class:`ModelIdentity`.
        status: ``done`` or ``failed``.
        reason: A code of docs/refusals.md; empty if done.
        message: Why the case failed, in one line; empty if done.
        lasting: Whether a failed case is expected to fail again, so that it is retried only on request.
        model_sha256: SHA-256 of the model.
        engine: The engine that ran the model, with its version.
        input_sha256: SHA-256 of the scan's files; empty if they were not read.
        modality: The scan's modality, such as ``CT``; None if unknown.
        volumes_ml: Volume of each label of the mask.
        airless_ml: Volume of each lung that is not darker than -500 HU, see
            :func:`medseg.inference.airless_lung.airless_ml`; empty for scans other than CT.
        intensities: Statistics of the scan within each label: voxels, mean, sd, p5, p50 and p95, in HU for
            CT; a value that is undefined is None.
        qc_flags: Flags of each label, see :func:`medseg.images.mask_quality.qc_flags`.
        entropy: Entropy in bits of each network label that was found.
        measures: Measures of both lungs and each side, by structure and column; empty unless asked for.
        measure_flags: Reasons that speak against comparing them with those of other scans.
        mask: The mask file, relative to the output folder; empty if the case failed.
        files: SHA-256 of every file written, by its path in the output folder.
        notices: What is unusual about the scan or the mask, without the path of the scan. Results read from a
            table, or from a journal of version 0.1.0, have texts only: their reason is empty.
        seconds: Time spent in each of `STAGES`, and `WAIT`.
        patient: The patient named in the manifest, or the first folder above the scan within the folder that
            was searched; empty if none.
        study: The second of these folders; empty if none.
        inputs: The files or folders of the scan, one for each channel.
        time: When the batch received the result, in seconds since 1970.
        stamp: Digest of the names, sizes and times of the input files; None if they do not exist.
        options: Digest of the options that decide the outputs.
        inodes: Digest of the inodes and change times of the input; empty if unknown.
        thumbnail: A small picture in base 64; not kept in the journal.
        slices: Larger pictures of slices, as JSON objects; not kept in the journal.
        lung: Picture, histograms and regions of measured lungs, as a JSON object; not kept in the journal.
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
    airless_ml: Mapping[str, float] = field(default_factory=dict)
    intensities: Mapping[str, Mapping[str, int | float | None]] = field(default_factory=dict)
    qc_flags: Mapping[str, Mapping[str, int | bool]] = field(default_factory=dict)
    entropy: Mapping[str, float] = field(default_factory=dict)
    measures: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    measure_flags: tuple[str, ...] = ()
    mask: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    notices: tuple[Notice, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    patient: str = ""
    study: str = ""
    inputs: tuple[str, ...] = ()
    time: float = 0.0
    stamp: str | None = None
    options: str = ""
    inodes: str = ""
    thumbnail: str = field(default="", repr=False)
    slices: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    lung: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def failure(cls, case: str, model: ModelIdentity, error: MedsegError, *, lasting: bool) -> CaseResult:
        """The result of a case that failed with this error."""
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
        """Names of all labels that have a volume, flags or intensities."""
        return tuple({**self.volumes_ml, **self.qc_flags, **self.intensities})

    def to_json(self) -> dict[str, Any]:
        """The result as a JSON object: a line of the journal."""
        record: dict[str, Any] = {
            "event": "case",
            "time": self.time,
            "patient": self.patient,
            "case": self.case,
            "model": self.model,
            "status": self.status,
            "reason": self.reason,
        }
        if self.status == "failed":
            record |= {"message": self.message, "lasting": self.lasting}
        else:
            record |= {
                "modality": self.modality,
                "volumes_ml": dict(self.volumes_ml),
                "intensities": {label: dict(values) for label, values in self.intensities.items()},
                "signs": {label: dict(flags) for label, flags in self.qc_flags.items()},
                "entropy": dict(self.entropy),
                "mask": self.mask,
                "files": dict(self.files),
            }
        record |= {
            "model_sha256": self.model_sha256,
            "engine": self.engine,
            "input_sha256": self.input_sha256,
            "warnings": list(self.warnings),
            "seconds": dict(self.seconds),
            "stamp": self.stamp,
            "options": self.options,
        }
        notices = [notice.to_json() for notice in self.notices if notice.reason]
        measures = {name: dict(values) for name, values in self.measures.items()}
        extra: dict[str, Any] = {"measures": measures, "measure_flags": list(self.measure_flags)}
        extra |= {"airless_ml": dict(self.airless_ml)}
        extra |= {"study": self.study, "inputs": list(self.inputs)}
        extra |= {"inodes": self.inodes, "notices": notices, "thumbnail": self.thumbnail}
        extra |= {"slices": [dict(each) for each in self.slices], "lung": dict(self.lung)}
        return record | {name: value for name, value in extra.items() if value}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> CaseResult:
        """The result that :meth:`to_json` wrote, possibly in an earlier version of medseg.

        Raises:
            ValueError: The object is not a result: the id, the model or the status is missing, or a field has
                the wrong type.
        """
        # Journals have called the flags "signs" since the first version.
        named = {"qc_flags" if name == "signs" else name: each for name, each in value.items()}
        known = {each.name: named[each.name] for each in fields(cls) if each.name in named}
        if "notices" not in known:
            known["notices"] = [{"reason": "", "text": text} for text in named.get("warnings", ())]
        result = _validator().validate_python(known)
        if result.status not in ("done", "failed"):
            raise ValueError(f"the status of case {result.case} is {result.status!r}, not done or failed")
        return result

    def to_row(self) -> dict[str, object]:
        """The result as a row of ``results.csv``, by column; unknown values are empty or have no column."""
        names = ("case", "patient", "study", "model", "status", "reason", "message", "mask")
        row: dict[str, object] = {name: getattr(self, name) for name in names}
        row["input"] = _BETWEEN_WARNINGS.join(self.inputs)
        row["qc_flags"] = "; ".join(
            f"{label} {text}" for label, flags in self.qc_flags.items() for text in descriptions(flags)
        )
        for suffix, values_ml in (("_ml", self.volumes_ml), (_AIRLESS, self.airless_ml)):
            if values_ml.keys() >= set(_SIDES):
                row[f"both_lungs{suffix}"] = round(sum(values_ml[side] for side in _SIDES), 4)
        for label, volume_ml in self.volumes_ml.items():
            row[f"{label}_ml"] = volume_ml
            if label in self.airless_ml:
                row[f"{label}{_AIRLESS}"] = self.airless_ml[label]
            row |= {f"{label}_{name}": value for name, value in self.qc_flags.get(label, {}).items()}
            values = self.intensities.get(label, {})
            row |= {f"{label}_{name}": values.get(name) for name in _STATISTICS if name in values}
        row |= {f"{label}_entropy": bits for label, bits in self.entropy.items()}
        for structure, measures in self.measures.items():
            row |= {f"{structure}_{name}": rounded(value) for name, value in measures.items()}
        if self.measures:
            row["measure_flags"] = " ".join(self.measure_flags)
        row["warnings"] = _BETWEEN_WARNINGS.join(self.warnings)
        row |= {f"seconds_{stage}": self.seconds.get(stage) for stage in STAGES}
        row |= {name: getattr(self, name) for name in _MADE_BY}
        return {name: "" if value is None else value for name, value in row.items()}

    @classmethod
    def from_row(cls, row: Mapping[str, str]) -> CaseResult:
        """The result in a row of ``results.csv``, without the fields that the table does not have.

        Raises:
            KeyError: A column is missing.
            ValueError: A cell is not a number.
        """
        volumes_ml: dict[str, float] = {}
        airless_ml: dict[str, float] = {}
        entropy: dict[str, float] = {}
        flags: dict[str, dict[str, int | bool]] = {}
        intensities: dict[str, dict[str, float | None]] = {}
        for name, text in row.items():
            if not text:
                continue
            label, _, column = name.rpartition("_")
            # The longest: a flag's name may end in another one's.
            flag = max((each for each in REGISTRY if name.endswith(f"_{each}")), key=len, default=None)
            if flag is not None:
                flags.setdefault(name.removesuffix(f"_{flag}"), {})[flag] = _flag(text)
            elif name.endswith(_AIRLESS):
                airless_ml[name.removesuffix(_AIRLESS)] = float(text)
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
            airless_ml=airless_ml,
            intensities=intensities,
            qc_flags=flags,
            entropy=entropy,
            notices=tuple(Notice("", text) for text in row["warnings"].split(_BETWEEN_WARNINGS) if text),
            seconds=seconds,
            mask=row.get("mask", ""),
            study=row.get("study", ""),
            inputs=tuple(part for part in row.get("input", "").split(_BETWEEN_WARNINGS) if part),
            patient=row.get("patient", ""),
            engine=row.get("engine", ""),
            model_sha256=row.get("model_sha256", ""),
            input_sha256=row.get("input_sha256", ""),
        )


def _flag(text: str) -> int | bool:
    """A flag from its text; a spreadsheet may have turned 1 into 1.0."""
    return text == "True" if text in ("True", "False") else int(float(text))


@cache
def _validator() -> TypeAdapter[CaseResult]:
    return TypeAdapter(CaseResult)
