"""Segmenting one scan in one call: the mask in memory, or written to a file with its sidecar."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

from medseg.errors import UsageError
from medseg.images.intensity_stats import intensities
from medseg.images.label_selection import label_names, select_labels
from medseg.images.volume import Mask, Volume
from medseg.inference.airless_lung import aerated, airless_ml, lungs_of
from medseg.inference.case_reading import CaseReading
from medseg.inference.registry import SegmentationMethod, load_segmenter
from medseg.io import check_source
from medseg.io.conversion import check_mask_output
from medseg.io.dicomweb.address import written
from medseg.io.foreign_images import ScanLike, is_image
from medseg.io.mask_files import write_mask
from medseg.io.overwrite_guard import OverwriteGuard
from medseg.io.read_options import DEFAULT_OPTIONS, ReadOptions
from medseg.io.sidecar import facts_of, is_own_sidecar, write_json
from medseg.system.memory import no_gc
from medseg.system.notices import Notice, collect_notices
from medseg.system.progress import Shown, progress_bar, steps_shown


@dataclass(frozen=True)
class Runtime:
    """How a model runs, and which scans it accepts.

    Attributes:
        device: Device of the network: ``auto`` (a GPU if there is one), ``cpu``, ``gpu``, ``cuda``,
            ``cuda:1`` or ``mps``.
        engine: Engine of the network: ``auto``, ``torch``, ``openvino`` or ``onnx``. All give the same masks.
        any_modality: Skip the checks that the scan has the model's modality, and that CT is in HU.
        aerated_only: Leave out voxels of the lungs of a CT that are not darker than -500 HU, such as
            consolidation.
        roi: Names of the labels to write, or text with commas between them; all if empty. They keep their
            values.

    Example:
        >>> medseg.Runtime(engine="torch").device
        'auto'
    """

    device: str = "auto"
    engine: str = "auto"
    any_modality: bool = False
    aerated_only: bool = False
    roi: Sequence[str] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "roi", label_names(self.roi))


@dataclass(frozen=True)
class SegmentedFile:
    """The result of :func:`segment_file`.

    Attributes:
        path: Path of the mask file.
        mask: The mask.
        facts: Contents of the ``.json`` file beside it: labels, volumes, model, warnings.

    Example:
        >>> segmented = medseg.segment_file("chest.nii.gz", "segmented.nii.gz", model="threshold")
        >>> segmented.path.name, sorted(segmented.facts["volumes_ml"])
        ('segmented.nii.gz', ['left_lung', 'right_lung'])
    """

    path: Path
    mask: Mask
    facts: Mapping[str, Any]


def segment(
    scan: ScanLike | Sequence[ScanLike],
    *,
    model: str | Path | SegmentationMethod | None = None,
    series: str | int | None = None,
    options: ReadOptions = DEFAULT_OPTIONS,
    device: str = "auto",
    engine: str = "auto",
    aerated_only: bool = False,
    progress: Shown = None,
) -> Mask:
    """The mask of one scan, on exactly the scan's grid.

    For several scans create one :class:`medseg.Segmenter`, which loads the model once, or use
    :func:`medseg.batch`. :meth:`medseg.Mask.only` takes some of the mask's labels.

    Args:
        scan: A file, a DICOM folder, a volume, or an image of another library that :func:`medseg.as_volume`
            accepts; a list of them for a model with several channels.
        model: A model file, a name of :func:`medseg.list_models`, or a method loaded by
            :func:`medseg.load_segmenter`; ``lung_ct_context`` if None.
        series: The DICOM series to read if a folder holds several; shorthand for ``ReadOptions(series=...)``.
        options: How to read the scan when the file leaves a question open.
        device: Device of the network, as in :class:`medseg.Runtime`.
        engine: Engine of the network: ``auto``, ``torch``, ``openvino`` or ``onnx``.
        aerated_only: Leave out voxels of the lungs of a CT that are not darker than -500 HU.
        progress: Whether to show progress; None shows it on a terminal or in a notebook only.

    Raises:
        InputRefused: the scan cannot be read or trusted, or has other channels than the model.
        ModelRefused: the model is damaged or does not fit.
        UsageError: no such model, device or engine.

    Example:
        >>> mask = medseg.segment("chest.nii.gz", model="threshold")
        >>> mask.array.shape, [label.name for label in mask.labels]
        ((98, 76, 67), ['right_lung', 'left_lung'])
    """
    if series is not None:
        options = replace(options, series=series)
    case = CaseReading(_listed(scan), options)
    with closing(case), progress_bar("segmenting", progress) as advance, steps_shown(advance):
        _, mask, first = _segmented(case, _loader(model, Runtime(device, engine)))
    return aerated(mask, first) if aerated_only and _has_air(first, mask) else mask


def segment_file(
    scan: ScanLike | Sequence[ScanLike],
    output: str | Path,
    *,
    model: str | Path | SegmentationMethod | None = None,
    stats: str | Path | None = None,
    format: str | None = None,
    options: ReadOptions = DEFAULT_OPTIONS,
    runtime: Runtime | None = None,
    progress: Shown = None,
) -> SegmentedFile:
    """Segments one scan and writes the mask, with a ``.json`` file beside it that records its origin.

    Args:
        scan: The scan, as in :func:`segment`; also the ``dicomweb://`` address of a series, which is copied
            into a temporary folder for the time of the call.
        output: The mask file to write; the suffix chooses the format.
        model: The model, as in :func:`segment`.
        stats: A JSON file to write volumes and intensities inside each label to.
        format: Format of a ``.dcm`` file: ``dicom-seg`` (the default) or ``rtstruct``.
        options: How to read the scan when the file leaves a question open.
        runtime: How the model runs; only ``aerated_only`` and ``roi`` apply to a method that is already
            loaded.
        progress: Whether to show progress; None shows it on a terminal or in a notebook only.

    Raises:
        UsageError: the output cannot be written, is the scan itself (``overwrites-input``), or a file that
            medseg did not write (``foreign-file``), or the model has no label of a name in ``runtime.roi``
            (``no-such-label``).

    Other errors are those of :func:`segment`.

    Example:
        >>> result = medseg.segment_file("chest.nii.gz", "lungs.nii.gz", model="threshold")
        >>> sorted(path.name for path in result.path.parent.glob("lungs.*"))
        ['lungs.json', 'lungs.nii.gz']
        >>> result.facts["warnings"]
        []
    """
    with closing(CaseReading(_listed(scan), options)) as case:
        return segment_case(
            case,
            Path(output),
            model=model,
            runtime=runtime or Runtime(),
            stats=stats,
            format=format,
            progress=progress,
        )


def segment_case(
    case: CaseReading,
    output: Path,
    *,
    model: str | Path | SegmentationMethod | None,
    runtime: Runtime,
    stats: str | Path | None = None,
    format: str | None = None,
    progress: Shown = None,
    then: CaseReading | None = None,
) -> SegmentedFile:
    """The mask of a case, written as by :func:`segment_file`, which has the same arguments and errors.

    Args:
        case: The scans, which may be on their way already.
        output: The mask file to write.
        model: The model; one that is already loaded is not loaded again.
        runtime: How the model runs.
        stats: A JSON file to write volumes and intensities inside each label to.
        format: Format of a ``.dcm`` file.
        progress: Whether to show progress.
        then: The case that follows: it is read while this one is segmented, if there is memory to spare.
    """
    inputs = [*case.paths, *([model] if isinstance(model, str | Path) else [])]
    check_mask_output(output, inputs, format)
    if stats is not None:
        OverwriteGuard([*inputs, output]).check(stats, is_own=is_own_sidecar)
    with (
        collect_notices(pass_on=True) as notices,
        progress_bar(_title(case), progress) as advance,
        steps_shown(advance),
    ):
        method, mask, first = _segmented(
            case,
            _loader(model, runtime),
            check=lambda volume: check_source(volume.source, output),
            keep=stats is not None,
            then=then,
            roi=runtime.roi,
        )
    choices: dict[str, Any] = {"roi": list(runtime.roi)} if runtime.roi else {}
    if _has_air(first, mask):
        airless = airless_ml(mask, first)
        choices["airless_ml"] = {
            name: round(ml, 4) for name, ml in airless.items() if not runtime.roi or name in runtime.roi
        }
        if runtime.aerated_only:
            choices["aerated_only"] = True
            mask = aerated(mask, first)
    if runtime.roi:
        mask = mask.only(*runtime.roi)
    facts = facts_of(mask, method) | choices | {"warnings": _without_paths(notices, case.paths)}
    sidecar = write_mask(mask, output, facts, format=format)
    if stats is not None and first is not None:
        # With the digests too: this may be the sidecar itself.
        write_json(Path(stats), sidecar | {"intensities": intensities(first, mask)})
    return SegmentedFile(output, mask, sidecar)


def _segmented(
    case: CaseReading,
    load: Callable[[], SegmentationMethod],
    *,
    check: Callable[[Volume], None] = lambda volume: None,
    keep: bool = False,
    then: CaseReading | None = None,
    roi: Sequence[str] = (),
) -> tuple[SegmentationMethod, Mask, Volume | None]:
    """The method, the mask, and the first channel if it is to be kept or the labels are lungs."""
    with no_gc():
        case.start()  # the scan is read while the model is being loaded
        method = load()
    volumes = case.volumes(len(method.channels))
    check(volumes[0])
    keep = keep or bool(lungs_of(method.labels))  # methods that divide lungs keep the scan, too
    # Methods of users may know nothing of labels to leave out.
    prepared = method.prepare(volumes, roi) if roi else method.prepare(volumes)
    first = volumes[0] if keep else None
    del volumes  # frees the scan's memory for the network
    if then is not None:
        then.start_ahead()
    return method, prepared.predict().mask, first


def _has_air(scan: Volume | None, mask: Mask) -> TypeGuard[Volume]:
    """Whether a mask has lungs, and the scan shows by its HU which of their voxels are aerated."""
    return scan is not None and scan.source.modality != "MR" and bool(lungs_of(mask.labels))


def _listed(scan: ScanLike | Sequence[ScanLike]) -> list[ScanLike]:
    scans: list[Any] = [scan] if is_image(scan) or not isinstance(scan, Iterable) else list(scan)
    if not scans:
        raise UsageError("no scan given", where="scan", remedy="give at least one", reason="usage")
    return scans


def _loader(
    model: str | Path | SegmentationMethod | None, runtime: Runtime
) -> Callable[[], SegmentationMethod]:
    """A function that returns the method, once it is known to have the labels of ``runtime.roi``."""

    def load() -> SegmentationMethod:
        method = model
        if method is None or isinstance(method, str | Path):
            method = load_segmenter(
                method, device=runtime.device, engine=runtime.engine, any_modality=runtime.any_modality
            )
        if runtime.roi:
            select_labels(method.labels, runtime.roi, "--roi")
        return method

    return load


def _title(case: CaseReading) -> str:
    first = case.scans[0]
    return f"segmenting {Path(first).name}" if isinstance(first, str | Path) else "segmenting"


def _without_paths(notices: Sequence[Notice], paths: Sequence[str | Path]) -> list[str]:
    """The notices without the paths of the scans, which may identify patients."""
    texts = [str(notice) for notice in notices]
    for path in paths:
        texts = [text.replace(str(path), "scan").replace(written(path), "scan") for text in texts]
    return texts
