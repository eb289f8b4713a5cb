"""``medseg segment``."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from medseg.cli.early_checks import check_mask, check_model, check_scans, check_store
from medseg.cli.mask_targets import MaskTarget, mask_targets
from medseg.cli.options import (
    AeratedOnly,
    AsJson,
    Device,
    Engine,
    MaskFormat,
    Nonfinite,
    PixelMm,
    Roi,
    Series,
    Trust,
    VolumeNumber,
    choices_of,
    model_names,
    roi_of,
    words_of,
)
from medseg.cli.output import mention_older_output, print_error, print_next
from medseg.errors import UsageError
from medseg.io.dicomweb.address import DicomwebAddress, is_address
from medseg.io.formats import stem
from medseg.system.atomic_write import check_folder
from medseg.system.error_conversion import as_medseg_error
from medseg.system.notices import RESEARCH
from medseg.system.output_folder import check_output_folder, make_output_folder
from medseg.system.quiet_libraries import import_nibabel

if TYPE_CHECKING:
    from medseg.inference.registry import SegmentationMethod
    from medseg.inference.segmentation import SegmentedFile


def segment(
    scans: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="SCAN",
            help="Scans: NIfTI, NRRD or MHA files, DICOM folders, pictures, or addresses such as "
            "dicomweb://HOST/.../studies/UID/series/UID. Without -o, the last argument is the mask to write.",
        ),
    ] = None,
    inputs: Annotated[
        list[Path] | None,
        typer.Option(
            "-i", "--input", help="Scan to segment; for a model of several channels, give -i once for each."
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", help="Mask to write; for several scans a folder, such as masks/."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Model file, or a name listed by `medseg models`.",
            show_default="lung_ct_context",
            autocompletion=model_names,
        ),
    ] = None,
    stats: Annotated[
        Path | None,
        typer.Option(help="JSON file to write as well, with the volume and intensities of each label."),
    ] = None,
    per_label: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Also write one binary mask per label, FOLDER/LABEL.nii.gz; if -o is a folder, each scan "
            "has a folder of its own in FOLDER.",
        ),
    ] = None,
    format_: MaskFormat = None,
    store: Annotated[
        bool,
        typer.Option(
            "--store",
            help="Also store the mask on the DICOMweb server that the scan came from; -o may be left out.",
        ),
    ] = False,
    series: Series = None,
    volume: VolumeNumber = None,
    trust: Trust = None,
    nonfinite: Nonfinite = None,
    pixel_mm: PixelMm = None,
    device: Device = "auto",
    engine: Engine = "auto",
    any_modality: Annotated[
        bool, typer.Option("--any-modality", help="Skip the check that the scan fits the model's modality.")
    ] = False,
    aerated_only: AeratedOnly = False,
    roi: Roi = None,
    as_json: AsJson = False,
) -> None:
    """Segment one scan or several, loading the model once. Each mask has exactly the grid of its scan."""
    kept = not store or output is not None
    if store:
        check_store([*(scans or []), *(inputs or [])], output, format_)
    with ExitStack() as stack:
        if not kept:
            output = stack.enter_context(TemporaryDirectory(prefix="medseg-store-")) + os.sep
            format_ = format_ or "dicom-seg"
        targets = mask_targets(scans or [], inputs or [], output, format_)
        several, names = len(targets) > 1, roi_of(roi)
        if several and stats is not None:
            raise UsageError(
                "--stats is one file for several scans",
                where="--stats",
                remedy="leave it out: the .json beside each mask has the volumes",
                reason="usage",
            )
        is_folder = output is not None and targets[0].mask != Path(output)
        with mention_older_output(targets[0].mask):
            for folder in ([Path(str(output))] if is_folder else []) + ([per_label] if per_label else []):
                check_output_folder(folder)
            if not is_folder:
                check_folder(targets[0].mask)
            if stats and not (is_folder and _is_made_with(stats.parent, Path(str(output)))):
                check_folder(stats)
            check_model(model, engine)
            check_scans([each for target in targets for each in target.channels])
        folders = {target.mask: per_label or Path() for target in targets}
        if is_folder:
            folders = {mask: folder / stem(mask) for mask, folder in folders.items()}
            make_output_folder(Path(str(output)))
        for target in targets:
            check_mask(target.mask, format_)
        import_nibabel()
        from medseg.images.label_selection import select_labels
        from medseg.inference.case_reading import CaseReading
        from medseg.inference.registry import load_segmenter
        from medseg.inference.segmentation import Runtime, segment_case
        from medseg.io.conversion import check_mask_output
        from medseg.io.label_files import check_label_files, write_label_files
        from medseg.io.sidecar import sidecar_path

        for target in targets:
            check_mask_output(target.mask, target.channels, format_)
        method: SegmentationMethod | str | None = model
        if several or per_label is not None:
            method = load_segmenter(model, device=device, engine=engine, any_modality=any_modality)
            labels = select_labels(method.labels, names, "--roi").labels if names else method.labels
            for target in targets if per_label is not None else ():
                outputs = [target.mask, sidecar_path(target.mask), *([] if stats is None else [stats])]
                check_label_files(folders[target.mask], labels, [*target.channels, *outputs])
        options = choices_of(series, volume, trust, nonfinite, pixel_mm)
        cases = [CaseReading(target.channels, options) for target in targets]
        for case in cases:
            stack.callback(case.close)
        runtime, failed = Runtime(device, engine, any_modality, aerated_only, names), 0
        for target, case, then in zip(targets, cases, [*cases[1:], None], strict=True):
            started = time.perf_counter()
            try:
                with mention_older_output(target.mask):
                    made = segment_case(
                        case,
                        target.mask,
                        model=method,
                        runtime=runtime,
                        stats=stats,
                        format=format_,
                        then=then,
                    )
                    if per_label is not None:
                        write_label_files(made.mask, folders[target.mask], made.facts)
                    stored = _stored(target) if store else ""
            except Exception as error:
                known = as_medseg_error(error)
                if not several or known.reason == "unexpected":
                    raise
                print_error(known, known.exit_code)
                failed += 1
            else:
                seconds = time.perf_counter() - started
                _print_result(
                    target.mask if kept else None, made, seconds, stored, as_json=as_json, named=several
                )
            finally:
                case.close()
        last = targets[-1]
        if failed < len(targets) and not is_address(last.channels[0]):
            chosen = words_of(choices_of(series, volume, trust, nonfinite))  # view has no --pixel-mm
            print_next("view", last.channels[0], last.mask, *chosen)
        if failed:
            print(f"{failed} of {len(targets)} scans failed", file=sys.stderr)
            raise typer.Exit(1)


def _is_made_with(folder: Path, output: Path) -> bool:
    """Whether a folder that does not exist is an output folder that will be made, or one above it."""
    return not folder.exists() and folder.absolute() in (output.absolute(), *output.absolute().parents)


def _stored(target: MaskTarget) -> str:
    """The address of the mask, now stored in the study of its scan."""
    from medseg.io.dicomweb.storage import store

    return str(store(target.mask, DicomwebAddress.parse(target.channels[0])))


def _print_result(
    path: Path | None, made: SegmentedFile, seconds: float, stored: str, *, as_json: bool, named: bool
) -> None:
    """Prints the volumes on standard output, or one JSON object a line, and the rest on standard error."""
    if as_json:
        places = {"mask": str(path)} if path else {}
        places |= {"stored": stored} if stored else {}
        print(json.dumps({**places, **made.facts}), flush=True)
    else:
        from medseg.images.volume_text import volume_text

        for name, volume_ml in made.mask.volumes_ml().items():
            scan = f"{made.path.name}  " if named else ""
            print(f"{scan}{name:20s} {volume_text(volume_ml):>13s}", flush=True)
    _, on, gpu = str(made.facts.get("engine", "")).partition(" on ")
    done = " and ".join([*([f"wrote {path}"] if path else []), *([f"stored {stored}"] if stored else [])])
    print(f"{done} in {seconds:.1f} s{on}{gpu}. {RESEARCH}", file=sys.stderr)
