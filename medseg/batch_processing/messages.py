"""Messages between a batch and its workers: plain data that can be sent to another process."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from medseg import errors
from medseg.errors import MedsegError
from medseg.inference.case_result import CaseResult, ModelIdentity

MASKS = "masks"
"""Subfolder of the output folder that holds the masks."""

OVERLAYS, DICOM, PROBABILITIES, MEASURES = "overlays", "dicom", "probabilities", "measures"
PER_LABEL = "per_label"
"""Subfolders with further files of the cases."""


@dataclass(frozen=True)
class BatchConfig:
    """How every case is processed; plain data, so that it can be sent to another process.

    Attributes:
        models: Files, names listed by ``medseg models``, or ``threshold``; each case is segmented by all.
        folder: The output folder.
        scratch: A folder on the same disk, where files are written before they are moved into place.
        device: Device of the networks, in torch's notation.
        engine: Inference engine: see :data:`medseg.inference.backends.REGISTRY`.
        any_modality: Skip the modality check.
        trust: Which NIfTI geometry to use if two disagree: see :func:`medseg.io.read`.
        nonfinite: Replacement for NaN and infinite voxels.
        overlays: Write a picture of every mask.
        probabilities: Write a probability map for each label of a network.
        per_label: Write a binary mask of each label.
        dicom: ``dicom-seg`` or ``rtstruct``: also write this for scans that are DICOM.
        store: Also store the DICOM masks on the DICOMweb server of the scans.
        measure: ``lung``: also measure the lungs of every mask.
        aerated_only: Leave airless voxels of the lungs out of the masks of CT scans.
        roi: Names of the labels to write, in alphabetical order; all if empty.
        pictures: Write masks as PNG, because all scans are pictures.
        bom: Start the table with a byte order mark.
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
    per_label: bool = False
    dicom: str | None = None
    measure: str | None = None
    aerated_only: bool = False
    roi: tuple[str, ...] = ()
    pictures: bool = False
    bom: bool = False
    store: bool = False

    @classmethod
    def of(cls, data: dict[str, Any]) -> BatchConfig:
        """The configuration that :meth:`plain` wrote, after a round trip through JSON."""
        return cls(**{**data, "models": tuple(data["models"]), "roi": tuple(data.get("roi", ()))})

    def plain(self) -> dict[str, Any]:
        """The configuration as a JSON object."""
        return asdict(self)

    @property
    def mask_ending(self) -> str:
        """The suffix of masks."""
        return ".png" if self.pictures else ".nii.gz"

    @property
    def decisive(self) -> dict[str, Any]:
        """The options that change a mask or the set of output files; if one differs, a case is redone."""
        others = {"models", "folder", "scratch", "device", "engine", "bom"}
        # Later options count only if they are used, so that batches from before them keep their digests.
        others |= {
            name
            for name in ("measure", "aerated_only", "roi", "per_label", "pictures", "store")
            if not getattr(self, name)
        }
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in others}


@dataclass(frozen=True)
class CaseJob:
    """One case for a worker.

    Attributes:
        case: The id, which names the output files.
        images: Absolute paths, one per channel.
        models: Indices into ``BatchConfig.models`` of those that have not segmented the case yet.
    """

    case: str
    images: tuple[str, ...]
    models: tuple[int, ...]


@dataclass
class StopRequest:
    """Whether the user wants the batch to end.

    Attributes:
        asked: How often. Once: running cases are finished. Twice: they are abandoned.
        number: The signal of the last request.
    """

    asked: int = 0
    number: int = signal.SIGINT

    def ask(self, number: int = signal.SIGINT, frame: object = None) -> None:
        """Asks once more; usable as a signal handler."""
        self.asked += 1
        self.number = number


def lost(job: CaseJob, error: MedsegError, models: Sequence[ModelIdentity]) -> list[CaseResult]:
    """Failures of a case whose worker gave no answer, one per model; a later run tries them again."""
    return [CaseResult.failure(job.case, models[number], error, lasting=False) for number in job.models]


def error_to_json(error: MedsegError) -> dict[str, Any]:
    """The error as a JSON object, for :func:`error_from_json`."""
    facts = {"problem": error.problem, "where": error.where, "remedy": error.remedy, "reason": error.reason}
    return {"kind": type(error).__name__, **facts}


def error_from_json(facts: dict[str, Any]) -> MedsegError:
    """The error that :func:`error_to_json` wrote."""
    kind = getattr(errors, facts["kind"])
    error: MedsegError = kind(
        facts["problem"], where=facts["where"], remedy=facts["remedy"], reason=facts["reason"]
    )
    return error
