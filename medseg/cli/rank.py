"""``medseg rank``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from medseg.cli.output import print_next


def rank(
    folder: Annotated[Path, typer.Argument(help="Output folder of medseg batch.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="CSV file to write, with the whole list.")
    ] = None,
    count: Annotated[int, typer.Option("-n", "--count", min=1, help="Number of cases to print.")] = 20,
) -> None:
    """List the cases of a batch to annotate next, those that the model is least certain about first."""
    import medseg

    ranked = medseg.rank_cases(folder, output)
    for each in ranked[:count]:
        print(f"{each.case}\t{each.note or f'{each.entropy_bits:.4f} bits'}\t{each.input}")
    if output is not None:
        print(f"wrote {output} with {len(ranked)} cases", file=sys.stderr)
    print_next("serve", "DATA", "--batch", folder)
