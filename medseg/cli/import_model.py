"""``medseg import-model``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medseg.cli.output import print_next
from medseg.errors import listed
from medseg.system.atomic_write import check_folder
from medseg.system.notices import RESEARCH


def import_model(
    source: Annotated[
        Path,
        typer.Argument(
            help="nnU-Net v2 training folder, TotalSegmentator task, MONAI bundle, a zip of one, or a "
            "lungmask .pth."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Model file to write (.safetensors).")],
    folds: Annotated[
        str | None,
        typer.Option(
            help="nnU-Net: folds to import, such as 0,1,2,3,4; all is the fold named all.",
            show_default="all numbered folds",
        ),
    ] = None,
    configuration: Annotated[
        str | None,
        typer.Option(
            help="nnU-Net: configuration, such as 3d_fullres; several, separated by commas, are averaged."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the model.", show_default="the name of its data set")
    ] = None,
    step: Annotated[
        float,
        typer.Option(
            min=0.1,
            max=1.0,
            help="Step of the sliding window, as a share of its size; TotalSegmentator uses 0.8.",
        ),
    ] = 0.5,
    mirror: Annotated[
        bool,
        typer.Option(
            help="Mirror windows along the axes that the checkpoint allows, and average, as nnU-Net does."
        ),
    ] = True,
    fill: Annotated[
        Path | None, typer.Option(help="lungmask: weights of the network that fills gaps, such as R231.")
    ] = None,
) -> None:
    """Convert an nnU-Net, TotalSegmentator, lungmask or MONAI model. None of its code is run."""
    check_folder(output)
    import medseg
    from medseg.io.dicom.coded_terms import uncoded

    model = medseg.import_model(
        source,
        output=output,
        folds=[fold.strip() for fold in folds.split(",")] if folds else None,
        configuration=configuration,
        name=name,
        step=step,
        mirror=mirror,
        fill=fill,
    )
    labels = len(model.recipe.labels)
    print(
        f"wrote {output} (sha256 {model.digest[:12]}): {model.recipe.name}, {len(model.folds)} folds, "
        f"{labels} label{'s' if labels > 1 else ''}. {RESEARCH}"
    )
    unknown = uncoded(model.recipe.labels)
    if unknown:
        names = listed(unknown, 20)
        print(f"No SNOMED CT code is known for {names}: DICOM masks call them a tissue, beside their name.")
    print_next("segment", "SCAN", "-o", "mask.nii.gz", "--model", output)
