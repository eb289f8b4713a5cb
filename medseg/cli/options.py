"""Options that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from medseg.errors import UsageError
from medseg.io import DicomFormat, ReadOptions, read_options

Series = Annotated[str | None, typer.Option(help="DICOM series UID, or an ending of it that only it has.")]


VolumeNumber = Annotated[
    int | None, typer.Option("--volume", min=1, help="Which volume of a 4D file or series, from 1.")
]


Trust = Annotated[
    read_options.Trust | None, typer.Option(help="NIfTI: which geometry to believe where it is in doubt.")
]


AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, errors too.")]


Nonfinite = Annotated[float | None, typer.Option(help="Replace NaN and infinite voxels by this value.")]


MaskFormat = Annotated[
    DicomFormat | None, typer.Option("--format", help="Of a .dcm mask; dicom-seg by default.")
]


Device = Annotated[str, typer.Option(help="Where the network runs: cpu, cuda, cuda:1.")]


# No choices of typer: the table of engines needs torch, and a second list would be one file more to change
# for a new engine. A wrong name is refused with the rows of the table.
Engine = Annotated[
    str, typer.Option(help="What runs the network: auto, torch, openvino, onnx. The same masks from all.")
]


SplitOrAll: TypeAlias = Literal["train", "val", "test", "all"]
"""A split of a manifest, or every case."""


DataRoot = Annotated[
    Path | None, typer.Option(help="Where the manifest's files lie, instead of its own root.")
]


def choices_of(
    series: str | None, volume: int | None, trust: read_options.Trust | None, nonfinite: float | None
) -> ReadOptions:
    """The choices of the four options."""
    return ReadOptions(series, volume, trust, nonfinite)


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
