"""The command line: thin, and the only place that prints. Heavy imports happen inside commands."""

from __future__ import annotations

import ctypes
import json
import os
import re
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medseg.errors import InputWarning, MedsegError, ResourceError, UsageError, printable

if TYPE_CHECKING:
    from medseg.io import Choices
    from medseg.manifest import Case
    from medseg.training import EpochEnd
    from medseg.volume import Mask

RESEARCH = "Research use only. Not a medical device."

app = typer.Typer(
    help=f"Medical scans in, checked segmentation masks out.\n\n{RESEARCH}\n\n"
    "Exit codes: 0 ok, 1 some cases failed, 2 usage, 3 input refused, 4 model refused, 5 resource.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Series = Annotated[str | None, typer.Option(help="DICOM series UID, or an ending of it that only it has.")]
VolumeNumber = Annotated[
    int | None, typer.Option("--volume", min=1, help="Which volume of a 4D file or series, from 1.")
]
Trust = Annotated[
    str | None,
    typer.Option(help="NIfTI: which geometry to believe where it is in doubt: sform, qform or pixdim."),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, errors too.")]
Nonfinite = Annotated[float | None, typer.Option(help="Replace NaN and infinite voxels by this value.")]
MaskFormat = Annotated[
    str | None, typer.Option("--format", help="Of a .dcm mask: dicom-seg (the default) or rtstruct.")
]
Device = Annotated[str, typer.Option(help="Where the network runs: cpu, cuda, cuda:1.")]
DataRoot = Annotated[
    Path | None, typer.Option(help="Where the manifest's files lie, instead of its own root.")
]


@app.command()
def segment(
    scan: Annotated[Path | None, typer.Argument(help="NIfTI, NRRD, MHA or DICOM folder.")] = None,
    output_path: Annotated[Path | None, typer.Argument(metavar="[MASK]", help="Same as -o.")] = None,
    inputs: Annotated[list[Path] | None, typer.Option("-i", "--input", help="Scan; once a channel.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Mask to write.")] = None,
    model: Annotated[str | None, typer.Option(help="Model file, or the name of a shipped model.")] = None,
    stats: Annotated[Path | None, typer.Option(help="Also write volumes and intensities per label.")] = None,
    format_: MaskFormat = None,
    series: Series = None,
    volume: VolumeNumber = None,
    trust: Trust = None,
    nonfinite: Nonfinite = None,
    device: Device = "cpu",
    any_modality: Annotated[
        bool, typer.Option("--any-modality", help="Also where the scan is MR and the model for CT, say.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Segment one scan: the mask lies on the scan's own grid."""
    if (inputs and scan) or (output and output_path):
        raise UsageError(
            "scan or mask given twice", remedy="give -i and -o, or SCAN and MASK, not both", reason="usage"
        )
    scans = list(inputs or ([scan] if scan else []))
    target = output or output_path
    if not scans or target is None:
        raise UsageError(
            "need a scan and -o MASK", remedy="medseg segment SCAN -o MASK --model MODEL", reason="usage"
        )
    from medseg.io import check_source, check_writable, read_channels
    from medseg.model import shipped

    if model is None:
        raise UsageError(
            "need --model", remedy=f"a model file, or one of: {', '.join(shipped())}", reason="usage"
        )
    choices = _choices(series, volume, trust, nonfinite)
    check_writable(target, format_)
    _spare_inputs(target, scans)
    started = time.perf_counter()
    from medseg.segmenter import Segmenter

    with _telling_of_older(target):
        segmenter = Segmenter(model, device=device, any_modality=any_modality)
        volumes = read_channels(scans, channels=len(segmenter.model.recipe.channels), choices=choices)
        check_source(volumes[0].source, target)
        mask = segmenter(volumes)
        mask.save(target, format=format_)
    facts = _facts(mask, segmenter.model.digest, segmenter.model.recipe.name)
    _write_json(_sidecar(target), facts)
    if stats:
        from medseg.statistics import intensities

        _write_json(stats, facts | {"intensities": intensities(volumes[0], mask)})
    if as_json:
        print(json.dumps({"mask": str(target)} | facts))
    else:
        for name, volume_ml in mask.volumes_ml().items():
            print(f"{name:20s} {volume_ml:10.1f} ml")
    print(f"wrote {target} in {time.perf_counter() - started:.1f} s. {RESEARCH}", file=sys.stderr)


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="Recipe file, or the name of a shipped recipe.")],
    manifest: Annotated[Path, typer.Argument(help="Cases: CSV, JSON, YAML, MSD or nnU-Net folder.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the run.")],
    data_root: DataRoot = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of prepared cases; RUN/cache by default.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    max_time: Annotated[
        str | None,
        typer.Option(
            help="Stop at the end of the epoch after this time (40m, 2h, 90s), resumed parts counted in."
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that augment patches.")] = 1,
) -> None:
    """Train a model from a recipe and a manifest."""
    seconds = _seconds(max_time)
    from medseg.manifest import Manifest
    from medseg.recipe import Recipe

    chosen = Recipe.read(recipe)
    cases = Manifest.read(manifest, root=data_root).cases
    from medseg.training import train as run

    with _Progress(chosen.train.epochs) as progress:
        model = run(
            chosen,
            cases,
            output,
            cache=cache,
            resume=resume,
            max_seconds=seconds,
            workers=workers,
            on_epoch=progress.show,
        )
    from medseg.report import history

    history(output / "history.csv", output / "history.png")
    print(f"wrote {output / 'model.safetensors'} (sha256 {model.digest[:12]}). {RESEARCH}")


@app.command()
def evaluate(
    manifest: Annotated[Path, typer.Argument(help="Cases: CSV, JSON, YAML, MSD or nnU-Net folder.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the tables and masks.")],
    model: Annotated[str | None, typer.Option(help="Segment the cases with this model.")] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Or take the masks <case id>.nii.gz of this folder.")
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="Labels of --masks come from this recipe.")] = None,
    split: Annotated[str, typer.Option(help="Cases of this split; 'all' for every case.")] = "test",
    data_root: DataRoot = None,
    device: Device = "cpu",
) -> None:
    """Compare masks with the truth: Dice, IoU and volume error of every case and label."""
    from medseg import evaluate as evaluation
    from medseg.manifest import Manifest

    everything = Manifest.read(manifest, root=data_root)
    cases = everything.cases if split == "all" else everything.split(split)
    if not cases:
        raise UsageError(
            f"no case has split {split!r}", where=manifest, remedy="give --split all", reason="usage"
        )
    output.mkdir(parents=True, exist_ok=True)
    if model is not None and masks is None:
        predict, labels = _segmenting(model, device, output)
    elif masks is not None and recipe is not None and model is None:
        predict, labels = _reading(masks, recipe)
    else:
        raise UsageError(
            "need either --model, or --masks with --recipe", where="medseg evaluate", reason="usage"
        )
    frame = evaluation.evaluate(cases, predict, labels)
    evaluation.write(frame, output)
    print(evaluation.summary(frame).to_string())
    failed = frame[frame["status"] == "failed"]
    for _, row in failed.drop_duplicates("case").iterrows():
        print(f"failed: {row['case']}: {row['reason']}", file=sys.stderr)
    print(f"wrote {output / 'evaluation.csv'}. {RESEARCH}", file=sys.stderr)
    if len(failed):
        raise typer.Exit(1)


@app.command()
def convert(
    scan: Annotated[Path | None, typer.Argument(help="Any readable scan.")] = None,
    output_path: Annotated[Path | None, typer.Argument(metavar="[OUTPUT]", help="Same as -o.")] = None,
    input_: Annotated[Path | None, typer.Option("-i", "--input", help="Same as the first argument.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File to write.")] = None,
    mask: Annotated[
        bool, typer.Option("--as-mask", help="It is a mask: read SEG and RTSTRUCT too, and write them.")
    ] = False,
    reference: Annotated[
        Path | None, typer.Option(help="With --as-mask: the scan it belongs to, which gives a SEG its grid.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="With --as-mask: the labels come from this recipe.")
    ] = None,
    format_: MaskFormat = None,
    series: Series = None,
    volume: VolumeNumber = None,
    trust: Trust = None,
    nonfinite: Nonfinite = None,
    as_json: AsJson = False,
) -> None:
    """Convert any readable scan to NIfTI, NRRD or MHA, voxels and grid unchanged; with --as-mask, a mask."""
    if (input_ and scan and output) or (output and output_path):
        raise UsageError(
            "scan or output given twice",
            remedy="give -i and -o, or SCAN and OUTPUT, not both",
            reason="usage",
        )
    source, target = input_ or scan, output or output_path
    if source is None or target is None:
        raise UsageError(
            "need a scan and -o OUTPUT", remedy="medseg convert SCAN -o scan.nii.gz", reason="usage"
        )
    from medseg.io import check_writable, read_channels

    choices = _choices(series, volume, trust, nonfinite)
    if not mask and (reference or recipe or format_ or target.suffix.lower() == ".dcm"):
        raise UsageError(
            "--reference, --recipe, --format and .dcm files are for masks",
            remedy="medseg convert MASK -o OUTPUT --as-mask",
            reason="usage",
        )
    check_writable(target, format_)
    _spare_inputs(target, [source, *([reference] if reference else [])])
    if mask:
        _convert_mask(source, target, reference, recipe, format_, choices, as_json)
        return
    with _telling_of_older(target):
        (scan_read,) = read_channels([source], choices=choices)
        scan_read.save(target)
    if as_json:
        from medseg.statistics import describe

        print(json.dumps({"image": str(target)} | describe(scan_read)))
    print(f"wrote {target}: {scan_read.grid}", file=sys.stderr)


@app.command()
def info(
    scan: Annotated[Path, typer.Argument(help="Any readable scan.")],
    series: Series = None,
    volume: VolumeNumber = None,
    trust: Trust = None,
    nonfinite: Nonfinite = None,
    as_json: AsJson = False,
) -> None:
    """Show what a scan is: grid, orientation, intensities. Never patient data."""
    from medseg.io import read_channels
    from medseg.statistics import describe

    facts = describe(*read_channels([scan], choices=_choices(series, volume, trust, nonfinite)))
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        for name, value in facts.items():
            print(f"{name:14s} {value}")


@app.command()
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the results.")] = Path(
        "demo-out"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Which phantom patient.")] = 2026,
) -> None:
    """Segment a phantom chest CT whose truth is known: DICOM series in, mask and picture out."""
    from medseg.demo import run

    result = run(output, seed=seed)
    _write_json(_sidecar(result.mask), _facts(result.found, result.model_sha256, "phantom_lungs"))
    print(f"{'label':16s}{'Dice':>8s}{'found ml':>12s}{'truth ml':>12s}")
    for row in result.scores:
        print(f"{row.label:16s}{row.dice:8.3f}{row.volume_ml:12.1f}{row.truth_ml:12.1f}")
    print(f"wrote {result.mask} and {result.picture}. {RESEARCH}", file=sys.stderr)


@app.command()
def phantom(
    folder: Annotated[Path, typer.Argument(help="Folder for scans, truth and manifest.csv.")],
    cases: Annotated[int, typer.Option(min=1, help="How many patients.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of the first patient; each has its own.")] = 0,
) -> None:
    """Write phantom patients with exact truth, to try training without any data."""
    from medseg.demo import write_cases

    print(f"wrote {write_cases(folder, cases, seed=seed)}")


@app.command()
def recipe(
    name: Annotated[str | None, typer.Argument(help="Recipe to show; without it, their names.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="The JSON schema of recipes.")] = False,
) -> None:
    """Show a recipe as YAML, list the shipped ones, or export the JSON schema."""
    from medseg.recipe import Recipe, shipped

    if schema:
        print(json.dumps(Recipe.json_schema(), indent=2))
    elif name:
        print(Recipe.read(name).yaml(), end="")
    else:
        for each in shipped():
            print(f"{each:20s} {Recipe.read(each).description}")


@app.command("import-weights")
def import_weights(
    weights: Annotated[Path, typer.Argument(help="PyTorch checkpoint (.pth, .pt, .ckpt).")],
    recipe: Annotated[str, typer.Option(help="What it was trained with: recipe file or shipped name.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Model file to write (.safetensors).")],
) -> None:
    """Take over the weights of a PyTorch checkpoint, as tensors only: nothing in it is run."""
    if output.suffix != ".safetensors":
        raise UsageError("a model file ends in .safetensors", where=output, reason="format")
    from medseg.io.atomic import check_folder
    from medseg.recipe import Recipe

    check_folder(output)
    chosen = Recipe.read(recipe)
    from medseg.checkpoint import import_weights as imported

    model = imported(weights, chosen)
    model.save(output)
    print(f"wrote {output} (sha256 {model.digest[:12]}). {RESEARCH}")


def main() -> None:
    """Runs the command line. Errors become at most three lines (``--json``: one object) and an exit code."""
    _raise_allocator_thresholds()
    warnings.showwarning = _warn
    try:
        code = app(standalone_mode=False)
    except MedsegError as error:
        _fail(error, error.exit_code)
    except MemoryError:
        _fail(_resource("out of memory", "close other programs, or use a larger machine", "memory"), 5)
    except OSError as error:
        _fail(_resource(str(error), "check free space and permissions", "disk"), 5)
    except RuntimeError as error:
        # torch's own: DefaultCPUAllocator on CPU, torch.OutOfMemoryError on GPU.
        if "out of memory" not in str(error) and "can't allocate memory" not in str(error):
            raise
        _fail(_resource("out of memory", "use a smaller batch or a larger machine", "memory"), 5)
    except KeyboardInterrupt:
        _fail(UsageError("interrupted", reason="interrupted"), 130)
    except Exception as error:
        # The parser's own errors; depending on its version typer takes click or carries its own.
        if not hasattr(error, "format_message"):
            raise
        remedy = "medseg --help shows what is understood"
        _fail(UsageError(error.format_message(), remedy=remedy, reason="usage"), 2)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(error: MedsegError, code: int) -> None:
    if "--json" in sys.argv:
        facts = {"reason": error.reason, "exit_code": code, "where": error.where}
        print(json.dumps({"error": facts | {"problem": error.problem, "remedy": error.remedy}}))
    else:
        print(f"error: {error}", file=sys.stderr)
    sys.exit(code)


def _resource(problem: str, remedy: str, reason: str) -> ResourceError:
    return ResourceError(problem, remedy=remedy, reason=reason)


def _warn(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Shows our own warnings as one line; those of libraries are for developers."""
    if issubclass(category, InputWarning):
        print(f"warning: {printable(str(message))}", file=sys.stderr)


def _raise_allocator_thresholds() -> None:
    """Lets glibc keep freed memory for the next large tensor instead of returning it.

    Without it eager torch on CPU loses a third of its time to page faults: forward 1.5-1.8x,
    training step 1.3x. Only our own process does so, never the library on import.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        for option in (-3, -1):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
            libc.mallopt(option, 2**31 - 1)
    except (OSError, AttributeError):  # not glibc
        return


def _seconds(text: str | None) -> float | None:
    """``90s``, ``40m`` or ``2h`` as seconds; a bare number is minutes."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if not match or float(match[1]) <= 0:
        raise UsageError(
            f"cannot read the time {text!r}",
            where="--max-time",
            remedy="write 40m, 2h or 90s",
            reason="usage",
        )
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "": 60}[match[2]]


def _choices(series: str | None, volume: int | None, trust: str | None, nonfinite: float | None) -> Choices:
    from medseg.io import Choices

    if trust not in (None, "sform", "qform", "pixdim"):
        raise UsageError(
            f"cannot trust {trust!r}", where="--trust", remedy="give sform, qform or pixdim", reason="usage"
        )
    return Choices(series, volume, trust, nonfinite)  # type: ignore[arg-type]  # checked just above


def _spare_inputs(target: Path, scans: list[Path]) -> None:
    """Refuses to write a mask over the scan it is made from."""
    # Not Path.resolve, which raises where a link leads to itself.
    if os.path.realpath(target) in {os.path.realpath(scan) for scan in scans}:
        raise UsageError(
            "the output is the scan itself", where=target, remedy="choose another name", reason="usage"
        )


@contextmanager
def _telling_of_older(target: Path) -> Iterator[None]:
    """Says, when the block fails, that what stands at ``target`` is not its result."""
    older = target.exists()
    try:
        yield
    except BaseException:
        if older:
            print(f"warning: {target} is of an earlier run and was left as it is", file=sys.stderr)
        raise


def _sidecar(target: Path) -> Path:
    stem = target.name
    for suffix in (".gz", target.with_name(stem.removesuffix(".gz")).suffix):
        stem = stem.removesuffix(suffix)
    return target.with_name(f"{stem}.json")


def _facts(mask: Mask, model_digest: str, recipe_name: str) -> dict[str, Any]:
    from importlib.metadata import version

    return {
        "research_use_only": RESEARCH,
        "medseg": version("medseg"),
        "recipe": recipe_name,
        "model_sha256": model_digest,
        **_meaning(mask),
    }


def _meaning(mask: Mask) -> dict[str, Any]:
    return {
        "labels": {label.name: list(label.values) for label in mask.labels},
        "volumes_ml": {name: round(ml, 4) for name, ml in mask.volumes_ml().items()},
        "shape": list(mask.grid.shape),
        "affine": mask.grid.affine.tolist(),
    }


def _convert_mask(
    source: Path,
    target: Path,
    reference: Path | None,
    recipe: str | None,
    format_: str | None,
    choices: Choices,
    as_json: bool,
) -> None:
    """A mask in another format: on the grid of its reference, which a .dcm file refers to."""
    from medseg.io import check_source, read_channels, read_mask
    from medseg.recipe import Recipe
    from medseg.volume import Mask

    scan = read_channels([reference], choices=choices)[0] if reference else None
    if scan is not None:
        check_source(scan.source, target)
    elif target.suffix.lower() == ".dcm":
        raise UsageError(
            "a .dcm mask refers to a DICOM scan", remedy="give it with --reference SCAN", reason="usage"
        )
    # Without a recipe the labels are the segments' own names; other formats have none.
    labels = Recipe.read(recipe).labels if recipe else ()
    found = read_mask(source, labels, scan)
    if scan is not None:
        found = Mask(found.array, found.grid, found.labels, scan.source)
    found.save(target, format=format_)
    facts = _meaning(found)
    _write_json(_sidecar(target), facts)
    if as_json:
        print(json.dumps({"mask": str(target)} | facts))
    print(f"wrote {target}: {found.grid}", file=sys.stderr)


def _write_json(path: Path, facts: dict[str, Any]) -> None:
    from medseg.io.atomic import replacing

    with replacing(path) as temporary:
        temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _segmenting(model: str, device: str, output: Path) -> tuple[Any, Any]:
    from medseg.io import read_channels
    from medseg.segmenter import Segmenter

    segmenter = Segmenter(model, device=device)
    recipe = segmenter.model.recipe
    folder = output / "masks"
    folder.mkdir(exist_ok=True)

    def predict(case: Case) -> Mask:
        mask = segmenter(read_channels(case.images, channels=len(recipe.channels)))
        path = mask.save(folder / f"{case.id}.nii.gz")
        _write_json(_sidecar(path), _facts(mask, segmenter.model.digest, recipe.name))
        print(f"{case.id}: segmented", file=sys.stderr)
        return mask

    return predict, recipe.labels


def _reading(masks: Path, recipe: str) -> tuple[Any, Any]:
    from medseg.io import read_mask
    from medseg.recipe import Recipe

    labels = Recipe.read(recipe).labels
    return (lambda case: read_mask(masks / f"{case.id}.nii.gz", labels)), labels


class _Progress:
    """A bar with the time left on a terminal, a line an epoch elsewhere; always on stderr."""

    def __init__(self, epochs: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self.console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[facts]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("training", total=epochs, facts="preparing")

    def __enter__(self) -> _Progress:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def show(self, end: EpochEnd) -> None:
        dice = "".join(f" {name} {value:.4f}" for name, value in (end.dice or {}).items())
        minutes, seconds = divmod(round(end.seconds_left), 60)
        facts = f"loss {end.loss:.4f}{dice and f' · validation Dice{dice}'} · {minutes}:{seconds:02d} left"
        self.bar.update(self.task, completed=end.epoch, facts=facts)
        if not self.console.is_terminal:
            print(f"epoch {end.epoch}/{end.epochs}: {facts}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
