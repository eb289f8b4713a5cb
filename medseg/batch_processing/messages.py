"""What a batch and those who work for it say to one another: plain data."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from medseg import errors
from medseg.errors import MedsegError
from medseg.inference.case_result import CaseResult, ModelIdentity

MASKS = "masks"
"""Folder of the masks in that of the outputs."""


@dataclass(frozen=True)
class BatchConfig:
    """What is to be done with every case; plain data, so that it can be sent to a process.

    Attributes:
        models: Files, names of ``medseg models``, or ``threshold``; each case goes through all.
        folder: Of the outputs.
        scratch: A folder on the same disk, in which files grow before they are moved to their place.
        device: Where networks run, as torch names it.
        engine: What runs them: see :data:`medseg.inference.backends.REGISTRY`.
        any_modality: Take scans that say they are of another modality than the model's.
        trust: NIfTI geometry to believe in doubt: see :func:`medseg.io.read`.
        nonfinite: What NaN and infinite voxels become.
        overlays: Write a picture of every mask.
        probabilities: Write a map of every label of a network.
        dicom: ``dicom-seg`` or ``rtstruct``: write it, too, for scans that are DICOM.
    """

    models: tuple[str, ...]
    folder: str
    scratch: str
    device: str = "cpu"
    engine: str = "auto"
    any_modality: bool = False
    trust: str | None = None
    nonfinite: float | None = None
    overlays: bool = False
    probabilities: bool = False
    dicom: str | None = None

    @classmethod
    def of(cls, data: dict[str, Any]) -> BatchConfig:
        """From :meth:`plain` data, as JSON gives it back."""
        return cls(**{**data, "models": tuple(data["models"])})

    def plain(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)

    @property
    def decisive(self) -> dict[str, Any]:
        """What a mask depends on, or which files a case has: another value, and it is done again."""
        left = {"models", "folder", "scratch", "device", "engine"}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in left}


@dataclass(frozen=True)
class CaseJob:
    """One case for a station.

    Attributes:
        case: Id, which names the files.
        images: Absolute paths, one a channel.
        models: Numbers of the order's models that have not segmented it yet.
    """

    case: str
    images: tuple[str, ...]
    models: tuple[int, ...]


@dataclass
class StopRequest:
    """Whether the user wants the batch to end: after the cases at hand, or at once."""

    asked: int = 0
    number: int = signal.SIGINT

    def ask(self, number: int = signal.SIGINT, frame: object = None) -> None:
        """Once more, by a signal of this number; it can be its handler."""
        self.asked += 1
        self.number = number


def lost(job: CaseJob, error: MedsegError, models: Sequence[ModelIdentity]) -> list[CaseResult]:
    """Results of a case whose process gave none, one for each of its models; a later run tries it again."""
    return [CaseResult.failure(job.case, models[number], error, lasting=False) for number in job.models]


def error_to_json(error: MedsegError) -> dict[str, Any]:
    """The error as a JSON object, which :func:`error_from_json` reads."""
    facts = {"problem": error.problem, "where": error.where, "remedy": error.remedy, "reason": error.reason}
    return {"kind": type(error).__name__, **facts}


def error_from_json(facts: dict[str, Any]) -> MedsegError:
    """The error that :func:`error_to_json` wrote."""
    kind = getattr(errors, facts["kind"])
    error: MedsegError = kind(
        facts["problem"], where=facts["where"], remedy=facts["remedy"], reason=facts["reason"]
    )
    return error
