"""Models loaded once, through which one case after another goes: read, prepare, segment, write.

The same in a process of this machine and in an actor of a Ray cluster.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from medseg.batch_processing.fingerprint import digest
from medseg.batch_processing.messages import MASKS, BatchConfig, CaseJob
from medseg.errors import InputRefused, MedsegError
from medseg.images.intensity_stats import intensities
from medseg.images.mask_quality import qc_flags
from medseg.images.volume import Volume
from medseg.inference.case_result import CaseResult, ModelIdentity
from medseg.inference.prediction import Prediction, PreparedScan
from medseg.inference.registry import SegmentationMethod, load_segmenter
from medseg.io import ReadOptions, read_channels, write
from medseg.system.error_conversion import as_medseg_error
from medseg.system.notices import Notice, collect_notices
from medseg.visualization.overlays import overlay
from medseg.visualization.thumbnails import encoded, thumbnail


@dataclass
class _Case:
    """A job on its way."""

    job: CaseJob
    volumes: tuple[Volume, ...] = ()
    prepared: dict[int, PreparedScan] = field(default_factory=dict)
    failed: dict[int, MedsegError] = field(default_factory=dict)
    notices: list[Notice] = field(default_factory=list)
    of_model: dict[int, list[Notice]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    input_sha256: str = ""


class CasePipeline:
    """The models of an order, loaded.

    Attributes:
        methods: One a model, in the order's order.
        names: Of the methods, made distinct.

    Raises:
        MedsegError: as :func:`medseg.inference.registry.load_segmenter`.
    """

    def __init__(self, order: BatchConfig) -> None:
        self.order = order
        self.methods: tuple[SegmentationMethod, ...] = tuple(
            load_segmenter(model, device=order.device, engine=order.engine, any_modality=order.any_modality)
            for model in order.models
        )
        self.names = _distinct([each.name for each in self.methods])
        self._infos = self.models()

    def models(self) -> list[ModelIdentity]:
        """What the models are, in the order's order."""
        return [
            ModelIdentity(name, each.digest, each.engine, {label.name: label.values for label in each.labels})
            for name, each in zip(self.names, self.methods, strict=True)
        ]

    def load(self, job: CaseJob) -> _Case:
        """The case read and prepared for all its models; what fails is kept, and told by :meth:`finish`."""
        case = _Case(job)
        images = [Path(image) for image in job.images]
        choices = ReadOptions(None, None, self.order.trust, self.order.nonfinite)  # type: ignore[arg-type]
        try:
            with _timed(case, "read"), collect_notices() as case.notices:
                # The first model's channels; one that needs others refuses the case by itself.
                channels = len(self.methods[job.models[0]].channels)
                case.volumes = read_channels(images, channels=channels, choices=choices)
                case.input_sha256 = digest(_read_files(case.volumes, images))
        except Exception as error:
            case.failed = dict.fromkeys(job.models, _of_reading(error))
            return case
        for number in job.models:
            try:
                with _timed(case, "prepare"), collect_notices() as case.of_model[number]:
                    case.prepared[number] = self.methods[number].prepare(case.volumes)
            except Exception as error:
                case.failed[number] = as_medseg_error(error)
        return case

    def finish(self, case: _Case) -> list[CaseResult]:
        """The case segmented and written: a result for each of its models."""
        return [self._finished(case, number) for number in case.job.models]

    def _finished(self, case: _Case, number: int) -> CaseResult:
        model = self._infos[number]
        notices: list[Notice] = []
        try:
            if number in case.failed:
                raise case.failed[number]
            with collect_notices() as notices:
                result = self._done(case, number, model)
        except Exception as error:
            named = as_medseg_error(error)
            result = CaseResult.failure(case.job.case, model, named, lasting=named.exit_code != 5)
        all_notices = [*case.notices, *case.of_model.get(number, []), *notices]
        return replace(
            result,
            input_sha256=case.input_sha256,
            notices=tuple(dict.fromkeys(_bare(each, case.job) for each in all_notices)),
            seconds={name: round(value, 3) for name, value in case.seconds.items()},
        )

    def _done(self, case: _Case, number: int, model: ModelIdentity) -> CaseResult:
        """Segments a case by one model and writes its files."""
        scan = case.volumes[0]
        with _timed(case, "segment"):
            prediction = case.prepared.pop(number).predict(probabilities=self.order.probabilities)
        mask = prediction.mask
        with _timed(case, "write"):
            values = intensities(scan, mask)
            picture = encoded(thumbnail(scan, mask))
            files = self._written(case.job.case, model.name, scan, prediction)
        return CaseResult(
            case.job.case,
            model.name,
            "done",
            model_sha256=model.sha256,
            engine=model.engine,
            modality=scan.source.modality,
            volumes_ml={name: round(ml, 4) for name, ml in mask.volumes_ml().items()},
            intensities=values,
            qc_flags=qc_flags(mask),
            entropy={name: round(bits, 4) for name, bits in prediction.entropy.items()},
            mask=next(iter(files)),
            files=files,
            thumbnail=picture,
        )

    def _written(self, case: str, model: str, scan: Volume, prediction: Prediction) -> dict[str, str]:
        """All files of a case and their digests, the mask first; they come to their places together."""
        mask, inner = prediction.mask, model if len(self.methods) > 1 else ""
        scratch = Path(self.order.scratch) / f"{os.getpid()}-{case}"
        made: dict[str, Path] = {}

        def place(kind: str, name: str) -> Path:
            # Hidden, so that who looks for masks while the batch runs never finds an unfinished one.
            path = scratch / kind / inner / f".{name}"
            path.parent.mkdir(parents=True, exist_ok=True)
            made[path.with_name(name).relative_to(scratch).as_posix()] = path
            return path

        try:
            # No flush: a file that a power failure loses has not the digest that the journal knows.
            write(mask, place(MASKS, f"{case}.nii.gz"), flush=False)
            if self.order.overlays:
                overlay(scan, mask, place("overlays", f"{case}.png"), title=case)
            if self.order.dicom and scan.source.format == "dicom":
                write(mask, place("dicom", f"{case}.dcm"), format=self.order.dicom, flush=False)
            for label, values in prediction.probabilities.items():
                # Thousandths: as exact as a network is, and a tenth of the size.
                rounded = np.round(values, 3).astype(np.float32)
                path = place("probabilities", f"{case}_{label}.nii.gz")
                write(Volume(rounded, scan.grid, scan.source), path, flush=False)
            digests = {name: digest([path]) for name, path in made.items()}
            # The mask last: where it stands, all of the case stands.
            for name, path in reversed(made.items()):
                target = Path(self.order.folder) / name
                target.parent.mkdir(parents=True, exist_ok=True)
                path.replace(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return digests


def _bare(notice: Notice, job: CaseJob) -> Notice:
    """A notice without the path of the scan, which its row has beside it."""
    return notice.at(None) if notice.path in job.images else notice


@contextmanager
def _timed(case: _Case, stage: str) -> Iterator[None]:
    """Adds the seconds of a block to a stage of a case."""
    started = time.perf_counter()
    try:
        yield
    finally:
        case.seconds[stage] = case.seconds.get(stage, 0.0) + time.perf_counter() - started


def _of_reading(error: Exception) -> MedsegError:
    """A disk that fails while a scan is read is that scan's trouble, not that of the outputs."""
    named = as_medseg_error(error)
    if named.reason != "disk":
        return named
    return InputRefused(
        named.problem, where=named.where, remedy="copy or download it again", reason="unreadable"
    )


def _read_files(volumes: Sequence[Volume], images: Sequence[Path]) -> list[Path]:
    """The files that were read: of DICOM the slices, else what was named."""
    files = [path for volume in volumes for path in volume.source.files]
    return files or [path for path in images if path.is_file()]


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """The names; those that are there twice with ``_2`` and so on behind them."""
    made: list[str] = []
    for name in names:
        number, fresh = 1, name
        while fresh in made:
            number += 1
            fresh = f"{name}_{number}"
        made.append(fresh)
    return tuple(made)
