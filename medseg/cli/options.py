"""Options that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from medseg.errors import UsageError
from medseg.io import read_options
from medseg.io.formats import DicomFormat
from medseg.io.read_options import ReadOptions
from medseg.system.devices import check_name


def model_names(incomplete: str) -> list[str]:
    """Names of models that begin with what was typed, for the completion of the shell."""
    from medseg.inference.model_files import names

    return [name for name in ("threshold", *names()) if name.startswith(incomplete)]


Series = Annotated[
    str | None,
    typer.Option(help="DICOM series: its number in `medseg info FOLDER`, or the last digits of its UID."),
]


VolumeNumber = Annotated[
    int | None,
    typer.Option("--volume", min=1, help="Which volume of a 4D file or series to read, counted from 1."),
]


Trust = Annotated[
    read_options.Trust | None, typer.Option(help="NIfTI: which geometry to use if sform and qform disagree.")
]


AeratedOnly = Annotated[
    bool,
    typer.Option("--aerated-only", help="Leave airless lung out of the mask: voxels at or above -500 HU."),
]


Roi = Annotated[
    list[str] | None,
    typer.Option(
        "--roi",
        metavar="NAME,NAME",
        help="Write only these labels of the model; `medseg models` lists them.",
        show_default="all",
    ),
]


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output, including errors.")]


PixelMm = Annotated[
    str | None,
    typer.Option(
        "--pixel-mm",
        help="Pictures: pixel size in mm, or `file` to take it from the resolution tags of a TIFF.",
    ),
]


Nonfinite = Annotated[
    float | None,
    typer.Option(help="Value that replaces NaN and infinite voxels, in the unit of the scan (CT: HU)."),
]


MaskFormat = Annotated[
    DicomFormat | None, typer.Option("--format", help="Format of a .dcm mask.", show_default="dicom-seg")
]


def _device(names: str) -> str:
    for name in names.split(","):
        check_name(name)
    return names


Device = Annotated[
    str,
    typer.Option(
        "-d",
        "--device",
        callback=_device,
        help="Where the network runs: auto (a GPU if there is one), cpu, gpu, cuda, cuda:1 or mps.",
    ),
]


# Not a Literal: the table of engines imports torch, and a second list here would have to be kept in step
# with it. An unknown name is refused with the names in the table.
Engine = Annotated[
    str, typer.Option(help="Inference engine: auto, torch, openvino or onnx. All give the same masks.")
]


SplitOrAll: TypeAlias = Literal["train", "val", "test", "all"]
"""A split of a manifest, or every case."""


DataRoot = Annotated[
    Path | None,
    typer.Option(
        help="Folder that paths in the manifest are relative to, instead of the root that it names."
    ),
]


def choices_of(
    series: str | None,
    volume: int | None,
    trust: read_options.Trust | None,
    nonfinite: float | None,
    pixel_mm: str | None = None,
) -> ReadOptions:
    """Read options from the command line's options."""
    return ReadOptions(series, volume, trust, nonfinite, _pixel_mm(pixel_mm))


def words_of(options: ReadOptions) -> list[str]:
    """The words of the command line that make the same choices, for the next command."""
    given = {
        "--series": options.series,
        "--volume": options.volume,
        "--trust": options.trust,
        "--nonfinite": options.nonfinite,
        "--pixel-mm": options.pixel_mm,
    }
    return [word for name, value in given.items() if value is not None for word in (name, str(value))]


def _pixel_mm(text: str | None) -> float | Literal["file"] | None:
    if text is None or text == "file":
        return text  # type: ignore[return-value]  # narrowed to the one word
    try:
        return float(text)
    except ValueError:
        raise UsageError(
            f"cannot read the pixel size {text!r}",
            where="--pixel-mm",
            remedy="give a number of mm such as 0.25, or file",
            reason="usage",
        ) from None


def roi_of(values: list[str] | None) -> tuple[str, ...]:
    """The labels that ``--roi`` names, which may be repeated; none if it is not given."""
    if values is None:
        return ()
    from medseg.images.label_selection import label_names  # imports numpy

    return label_names(",".join(values))


def seconds_of(text: str | None) -> float | None:
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
