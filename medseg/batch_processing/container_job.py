"""The job of a container: DICOM series in one folder, masks as DICOM objects and a result file in another.

This is the contract of mercure's processing modules (https://mercure-imaging.org, "Module Development"):
the folders are named by ``MERCURE_IN_DIR`` and ``MERCURE_OUT_DIR``, settings are in ``task.json`` below
``process`` and ``settings``, files are named ``<series UID>#<object UID>.dcm``, and ``result.json`` may ask
for a notification. Other runners that give a container two folders, such as MHub's, use the same.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

from medseg.batch_processing.journal import NAME, latest, read
from medseg.batch_processing.launcher import batch
from medseg.batch_processing.messages import DICOM
from medseg.batch_processing.settings import BatchOptions, BatchResources
from medseg.errors import MedsegError, UsageError
from medseg.images.mask_quality import descriptions
from medseg.inference.case_result import CaseResult
from medseg.inference.registry import DEFAULT
from medseg.io.dicom import part10, signature
from medseg.io.formats import DicomFormat
from medseg.system.atomic_write import replacing
from medseg.system.own_version import own_version
from medseg.system.safe_parsing import json_data

RESULT = "result.json"
_TASK, _MOST_BYTES = "task.json", 1 << 20


@dataclass(frozen=True)
class JobSettings:
    """What :func:`run_job` does with each series.

    Attributes:
        model: Name of a model, or the path of a model file or package.
        format: ``dicom-seg`` or ``rtstruct``.
        measure: ``lung``: also measure the lungs, see :func:`medseg.measure`.
        roi: Names of the labels to write; all if empty.

    Example:
        >>> medseg.JobSettings(model="threshold").format
        'dicom-seg'
    """

    model: str = DEFAULT
    format: DicomFormat = "dicom-seg"
    measure: Literal["lung"] | None = None
    roi: tuple[str, ...] = ()

    @classmethod
    def read(cls, task: str | Path) -> JobSettings:
        """The settings in a ``task.json``: the object ``medseg`` of ``process`` and ``settings``.

        mercure merges settings of a module with those of a rule, which may be meant for others: only the
        object ``medseg`` is read, and it may have no unknown name. Several modules in a row are a list in
        ``process``; the first that has such an object counts. Without one, all settings are the defaults.

        Raises:
            UsageError: it cannot be parsed, or a setting is unknown or has a wrong value (``job-settings``).
        """
        task = Path(task)
        try:
            data = json_data(task.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise _wrong(f"cannot be read: {error}", task) from None
        steps = data.get("process") if isinstance(data, dict) else None
        for step in steps if isinstance(steps, list) else [steps]:
            settings = step.get("settings") if isinstance(step, dict) else None
            if isinstance(settings, dict) and "medseg" in settings:
                return cls._of(settings["medseg"], task)
        return cls()

    @classmethod
    def _of(cls, given: object, task: Path) -> JobSettings:
        names = [field.name for field in fields(cls)]
        if not isinstance(given, dict) or not set(given) <= set(names):
            raise _wrong(f"medseg is {given!r:.80}, not an object with {', '.join(names)}", task)
        for name, known in (("format", get_args(DicomFormat)), ("measure", ("lung", None))):
            if name in given and given[name] not in known:
                raise _wrong(f"{name} is {given[name]!r:.40}, not one of {known}", task)
        roi = given.get("roi", [])
        if not isinstance(given.get("model", DEFAULT), str) or not isinstance(roi, list):
            raise _wrong("model must be text, and roi a list of names", task)
        return cls(**{**given, "roi": tuple(str(name) for name in roi)})


def run_job(
    source: str | Path,
    output: str | Path,
    *,
    settings: JobSettings | None = None,
    resources: BatchResources | None = None,
) -> dict[str, Any]:
    """Segments every DICOM series below ``source`` and returns what it wrote to ``output/result.json``.

    Each series that is a volume gives one DICOM object, ``<series UID>#<object UID>.dcm``. Scouts,
    reports and pictures are left out. Series that cannot be segmented are named in the result and do not
    stop the others. Nothing else is written, and no file that exists is replaced, except for an earlier
    ``result.json``.

    Args:
        source: Folder with DICOM files at any depth.
        output: An existing folder.
        settings: The model and what is written; by default those of ``source/task.json``, if it exists.
        resources: Processes, memory and time; one process by default.

    Returns:
        ``medseg`` (the version), ``model``, ``series`` (for each its UID, status, file, volumes in ml,
        unusual flags in words, warnings and measures, or the reason of a failure), ``failed`` (how many), and
        ``__mercure_notification`` with a text, and ``requested`` if a series failed or is unusual.

    Raises:
        UsageError: no series was found (``no-cases``), ``output`` is not a folder (``no-folder``), or the
            settings are wrong (``job-settings``).
        ResourceError: highdicom is not installed (``missing-extra``), or the disk fails (``disk``).

    Example:
        >>> Path("job_output").mkdir()
        >>> made = medseg.run_job("dicom_folder", "job_output", settings=medseg.JobSettings("threshold"))
        >>> len(made["series"]), made["failed"]
        (1, 0)
    """
    source, output = Path(source), Path(output)
    if not output.is_dir():
        raise UsageError(
            "the output folder does not exist", where=output, remedy="make it first", reason="no-folder"
        )
    if settings is None:
        task = source / _TASK
        settings = JobSettings.read(task) if task.is_file() else JobSettings()
    options = BatchOptions(dicom=settings.format, measure=settings.measure, roi=settings.roi)
    with TemporaryDirectory(prefix="medseg-job-") as place:
        work = Path(place) / "batch"
        batch(
            source,
            work,
            model=settings.model,
            options=options,
            resources=resources or BatchResources(workers=1),
            progress=False,
        )
        found = latest(read([work / NAME])).values()
        series = [_series(result, work, output) for result in sorted(found, key=lambda each: each.case)]
    failed = [each for each in series if each["status"] == "failed"]
    unusual = [each for each in series if each.get("flags") or each.get("warnings")]
    text = f"medseg: {len(series) - len(failed)} of {len(series)} series segmented with {settings.model}"
    text += f", {len(unusual)} to look at" if unusual else ""
    made: dict[str, Any] = {
        "medseg": own_version(),
        "model": settings.model,
        "series": series,
        "failed": len(failed),
        "__mercure_notification": {"text": text, "requested": bool(failed or unusual)},
    }
    with replacing(output / RESULT) as fresh:
        fresh.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return made


def _series(result: CaseResult, work: Path, output: Path) -> dict[str, Any]:
    """What became of a series; its DICOM object is moved to the output folder."""
    uid = str(_header(Path(result.inputs[0]))["SeriesInstanceUID"]) if result.inputs else ""
    facts: dict[str, Any] = {"series_uid": uid, "status": result.status}
    if result.status == "failed":
        return facts | {"reason": result.reason, "message": result.message}
    made = work / DICOM / f"{result.case}.dcm"
    own = _header(made)
    target = output / f"{own['SeriesInstanceUID']}#{own['SOPInstanceUID']}.dcm"
    if not target.exists():  # UIDs follow from the content: an equal name is an equal mask
        shutil.copyfile(made, target)
    facts |= {"file": target.name, "volumes_ml": dict(result.volumes_ml)}
    facts["flags"] = [
        f"{label} {text}" for label, flags in result.qc_flags.items() for text in descriptions(flags)
    ]
    facts["warnings"] = list(result.warnings)
    if result.measures:
        facts |= {"measures": _plain(result.measures), "measure_flags": list(result.measure_flags)}
    return facts


def _header(path: Path) -> Mapping[str, Any]:
    """The UIDs of a DICOM file, or of the first one in a folder."""
    if path.is_dir():
        files = (each for each in sorted(path.rglob("*")) if each.is_file() and signature.is_dicom(each))
        path = next(files, path)
    head = part10.header(path, ["SeriesInstanceUID", "SOPInstanceUID"])
    return {name: head.get(name, "") for name in ("SeriesInstanceUID", "SOPInstanceUID")}


def _plain(measures: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {structure: dict(columns) for structure, columns in measures.items()}


def _wrong(what: str, task: Path) -> MedsegError:
    return UsageError(
        what,
        where=task,
        remedy='write {"process": {"settings": {"medseg": {"model": "lung_ct_context"}}}}',
        reason="job-settings",
    )
