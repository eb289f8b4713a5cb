"""The way of a case through loaded models: read, prepare, segment, write.

It is the same in a process of this machine and in an actor of a Ray cluster.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from medseg.batch_processing.fingerprint import digest
from medseg.batch_processing.input_digest import read_files
from medseg.batch_processing.intents import note_intent
from medseg.batch_processing.lung_pictures import measured_lungs
from medseg.batch_processing.messages import (
    DICOM,
    MASKS,
    MEASURES,
    OVERLAYS,
    PER_LABEL,
    PROBABILITIES,
    BatchConfig,
    CaseJob,
)
from medseg.errors import InputRefused, MedsegError, UsageError
from medseg.images.intensity_stats import intensities
from medseg.images.label import Label
from medseg.images.label_selection import select_labels
from medseg.images.mask_quality import qc_flags
from medseg.images.volume import Volume
from medseg.inference.airless_lung import aerated, airless_ml
from medseg.inference.case_result import WAIT, CaseResult, ModelIdentity
from medseg.inference.prediction import Prediction, PreparedScan
from medseg.inference.registry import SegmentationMethod, load_segmenter
from medseg.io import ReadOptions, read_channels, write
from medseg.io.dicomweb.address import DicomwebAddress
from medseg.io.dicomweb.local_copies import LocalCopies
from medseg.io.dicomweb.storage import store
from medseg.io.label_files import label_masks
from medseg.io.picture.reader import displayed
from medseg.measurement.lung_labels import lung_side
from medseg.measurement.lung_measures import columns_of
from medseg.measurement.measurement_table import Measurement
from medseg.measurement.scan_measurement import measure
from medseg.system.error_conversion import as_medseg_error
from medseg.system.file_names import file_name
from medseg.system.notices import Notice, collect_notices
from medseg.visualization.case_slices import case_slices
from medseg.visualization.overlays import overlay
from medseg.visualization.thumbnails import encoded, thumbnail


@dataclass
class _Case:
    """A job in progress."""

    job: CaseJob
    volumes: tuple[Volume, ...] = ()
    prepared: dict[int, PreparedScan] = field(default_factory=dict)
    failed: dict[int, MedsegError] = field(default_factory=dict)
    notices: list[Notice] = field(default_factory=list)
    model_notices: dict[int, list[Notice]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    input_sha256: str = ""
    copies: LocalCopies = field(default_factory=LocalCopies)


class CasePipeline:
    """The loaded models of a batch. Several threads may load cases.

    Attributes:
        config: How every case is processed.
        methods: One per model, in the order of ``config.models``.
        names: Names of the methods, made distinct.
        labels: The labels that are written for each of them.

    Raises:
        MedsegError: a model cannot be loaded, see :func:`medseg.inference.registry.load_segmenter`.
        UsageError: a model lacks a label of ``config.roi`` (``no-such-label``), or a lung to measure.
    """

    def __init__(self, config: BatchConfig) -> None:
        self.config = config
        self.methods: tuple[SegmentationMethod, ...] = tuple(
            load_segmenter(
                model, device=config.device, engine=config.engine, any_modality=config.any_modality
            )
            for model in config.models
        )
        self.names = _distinct([each.name for each in self.methods])
        self.labels = [self._labels(name, each) for name, each in zip(self.names, self.methods, strict=True)]
        for name, labels in zip(self.names, self.labels, strict=True):
            if config.measure and not any(lung_side(label) is not None for label in labels):
                raise UsageError(
                    f"the model {name} has no label of a lung to measure: {_names(labels)}",
                    where="--measure",
                    remedy="leave out --measure lung, choose a model of the lungs, or name lungs in --roi",
                    reason="measure",
                )
        self._infos = self.models()
        self._device, self._idle_since = threading.Lock(), 0.0

    @property
    def shares_device(self) -> bool:
        """Whether several threads may finish cases: then a lock lets one at a time use the device."""
        return self.config.device != "cpu"

    def models(self) -> list[ModelIdentity]:
        """The identities of the models, in the order of ``config.models``."""
        return [
            ModelIdentity(name, each.digest, each.engine, {label.name: label.values for label in labels})
            for name, each, labels in zip(self.names, self.methods, self.labels, strict=True)
        ]

    def _labels(self, name: str, method: SegmentationMethod) -> tuple[Label, ...]:
        """The labels that are written of a method's."""
        if not self.config.roi:
            return method.labels
        where = f"--roi of model {name}" if len(self.methods) > 1 else "--roi"
        return select_labels(method.labels, self.config.roi, where).labels

    def load(self, job: CaseJob) -> _Case:
        """The case, read and prepared for all its models; errors are kept for :meth:`finish`."""
        case = _Case(job, copies=LocalCopies(Path(self.config.scratch)))
        options = ReadOptions(None, None, self.config.trust, self.config.nonfinite)  # type: ignore[arg-type]
        try:
            with _timed(case, "read"), collect_notices() as case.notices, case.copies.named():
                images = [Path(image) for image in case.copies.fetch([Path(image) for image in job.images])]
                # The first model's channels; a model that needs others refuses the case itself.
                channels = len(self.methods[job.models[0]].channels)
                volumes = read_channels(images, channels=channels, choices=options)
                case.volumes = case.copies.named_sources(volumes)
                case.input_sha256 = digest(read_files(case.volumes, images))
        except Exception as error:
            case.failed = dict.fromkeys(job.models, _reading_error(error))
            return case
        for number in job.models:
            try:
                with _timed(case, "prepare"), collect_notices() as case.model_notices[number]:
                    roi = [self.config.roi] if self.config.roi else []  # as in medseg.segment
                    case.prepared[number] = self.methods[number].prepare(case.volumes, *roi)
            except Exception as error:
                case.failed[number] = as_medseg_error(error)
        return case

    def finish(self, case: _Case) -> list[CaseResult]:
        """Segments the case and writes its files; a result for each of its models."""
        results = []
        with closing(case.copies):
            for number in case.job.models:
                results.append(self._finish(case, number))
                if not self.shares_device:
                    self._idle_since = time.perf_counter()
        return results

    def _finish(self, case: _Case, number: int) -> CaseResult:
        model = self._infos[number]
        notices: list[Notice] = []
        try:
            if number in case.failed:
                raise case.failed[number]
            with collect_notices() as notices, case.copies.named():
                result = self._segment(case, number, model)
        except Exception as error:
            named = as_medseg_error(error)
            result = CaseResult.failure(case.job.case, model, named, lasting=named.exit_code != 5)
        all_notices = [*case.notices, *case.model_notices.get(number, []), *notices]
        return replace(
            result,
            input_sha256=case.input_sha256,
            notices=tuple(dict.fromkeys(_bare(case.copies.notice(each), case.job) for each in all_notices)),
            seconds={name: round(value, 3) for name, value in case.seconds.items()},
        )

    def _segment(self, case: _Case, number: int, model: ModelIdentity) -> CaseResult:
        """Segments a case with one model and writes its files."""
        scan = case.volumes[0]
        with self._device:
            if self._idle_since:
                case.seconds[WAIT] = case.seconds.get(WAIT, 0.0) + time.perf_counter() - self._idle_since
            with _timed(case, "segment"):
                prediction = case.prepared.pop(number).predict(probabilities=self.config.probabilities)
            self._idle_since = time.perf_counter()
        with _timed(case, "write"):
            airless = airless_ml(prediction.mask, scan) if scan.source.modality != "MR" else {}
            if airless and self.config.aerated_only:
                prediction = replace(prediction, mask=aerated(prediction.mask, scan))
            prediction = prediction.only(*self.config.roi)
            mask = prediction.mask
            airless = {name: ml for name, ml in airless.items() if name in model.labels}
            values = intensities(scan, mask)
            shown = displayed(case.volumes)
            picture, slices = encoded(thumbnail(shown, mask)), case_slices(shown, mask)
            measurement = measure(scan, mask) if self.config.measure else Measurement(())
            lung = measured_lungs(measurement, scan, mask, model)
            files = self._write(case.job, model.name, shown, prediction, measurement)
        return CaseResult(
            case.job.case,
            model.name,
            "done",
            model_sha256=model.sha256,
            engine=model.engine,
            modality=scan.source.modality,
            volumes_ml={name: round(ml, 4) for name, ml in mask.volumes_ml().items()},
            airless_ml={name: round(ml, 4) for name, ml in airless.items()},
            intensities=values,
            qc_flags=qc_flags(mask),
            entropy={name: round(bits, 4) for name, bits in prediction.entropy.items()},
            measures=columns_of(measurement.rows),
            measure_flags=tuple(notice.reason for notice in measurement.notices),
            mask=next(iter(files)),
            files=files,
            thumbnail=picture,
            slices=slices,
            lung=lung,
        )

    def _write(
        self, job: CaseJob, model: str, scan: Volume, prediction: Prediction, measurement: Measurement
    ) -> dict[str, str]:
        """Writes all files of a case and moves them into place together; their digests, the mask first."""
        case, mask, subfolder = job.case, prediction.mask, model if len(self.methods) > 1 else ""
        scratch = Path(self.config.scratch) / f"{os.getpid()}-{case}"
        written: dict[str, Path] = {}

        def place(kind: str, name: str, inner: str = "") -> Path:
            # Hidden, so that nobody finds an unfinished mask while the batch runs.
            path = scratch / kind / subfolder / inner / f".{name}"
            path.parent.mkdir(parents=True, exist_ok=True)
            written[path.with_name(name).relative_to(scratch).as_posix()] = path
            return path

        try:
            # No flush: a file damaged by a power failure does not match its digest in the journal.
            write(mask, place(MASKS, f"{case}{self.config.mask_ending}"), flush=False)
            if measurement.rows:
                measurement.save(place(MEASURES, f"{case}.csv"))
            if self.config.overlays:
                overlay(scan, mask, place(OVERLAYS, f"{case}.png"), title=case)
            if self.config.dicom and scan.source.format == "dicom":
                made = write(mask, place(DICOM, f"{case}.dcm"), format=self.config.dicom, flush=False)
                if self.config.store:
                    store(made, DicomwebAddress.parse(Path(job.images[0])))
            for label, values in prediction.probabilities.items():
                # Thousandths: as exact as a network is, and a tenth of the file size.
                rounded = np.round(values, 3).astype(np.float32)
                path = place(PROBABILITIES, f"{case}_{file_name(label)}.nii.gz")
                write(Volume(rounded, scan.grid, scan.source), path, flush=False)
            for name, binary in label_masks(mask) if self.config.per_label else ():
                write(binary, place(PER_LABEL, name, case), flush=False)
            digests = {name: digest([path]) for name, path in written.items()}
            note_intent(Path(self.config.scratch), case, model, digests)
            # The mask last: if it is there, all files of the case are.
            for name, path in reversed(written.items()):
                target = Path(self.config.folder) / name
                target.parent.mkdir(parents=True, exist_ok=True)
                path.replace(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return digests


def _bare(notice: Notice, job: CaseJob) -> Notice:
    """A notice without the path of the scan, which is the same for the whole row."""
    return notice.at(None) if notice.path in job.images else notice


@contextmanager
def _timed(case: _Case, stage: str) -> Iterator[None]:
    """Adds the seconds of a block to a stage of a case."""
    started = time.perf_counter()
    try:
        yield
    finally:
        case.seconds[stage] = case.seconds.get(stage, 0.0) + time.perf_counter() - started


def _reading_error(error: Exception) -> MedsegError:
    """The error of reading a scan; a failing disk makes the scan unreadable, it does not stop the batch."""
    named = as_medseg_error(error)
    if named.reason != "disk":
        return named
    return InputRefused(
        named.problem, where=named.where, remedy="copy or download it again", reason="unreadable"
    )


def _names(labels: Sequence[Label]) -> str:
    return ", ".join(label.name for label in labels)


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """The names, with ``_2`` and so on appended to repeated ones."""
    made: list[str] = []
    for name in names:
        number, fresh = 1, name
        while fresh in made:
            number += 1
            fresh = f"{name}_{number}"
        made.append(fresh)
    return tuple(made)
