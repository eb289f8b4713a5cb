"""Draws the worst failures of each fold's model: the slice with most errors, with truth and mask as contours.

    python benchmarks/lungs/failures.py --out runs/lungs --picture docs/model_cards/lung-ct-failures.png

For each kind of case, draws the one with the lowest Dice of both lungs; the worst kinds come first.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import medseg

SHOWN = 6
WINDOW_HU = (-1350, 250)
MARGIN = 12


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/lungs"))
    parser.add_argument("--picture", type=Path, required=True)
    arguments = parser.parse_args()
    frames = []
    for folder in sorted((arguments.out / "lung_ct").glob("fold*")):
        if (folder / "both" / "evaluation.csv").is_file():
            scores = pd.read_csv(folder / "both" / "evaluation.csv").assign(folder=folder)
            files = pd.read_csv(folder / "held_out.csv")[["id", "image", "label"]].add_suffix("_file")
            frames.append(scores.merge(files, left_on="case", right_on="id_file"))
    frame = pd.concat(frames)
    kind = frame["case"].str.extract(r"disease_[^_]+_(.*)")[0].fillna("as it is")
    worst = frame.assign(kind=kind).sort_values("dice").drop_duplicates("kind").head(SHOWN)
    figure, places = plt.subplots(2, SHOWN // 2, figsize=(12, 8.4), facecolor="black")
    for axes, row in zip(places.flat, worst.itertuples(), strict=True):
        draw(axes, row)
    figure.tight_layout()
    figure.savefig(arguments.picture, dpi=70)


def draw(axes: plt.Axes, row: object) -> None:
    """Draws the truth in green and the mask in red."""
    scan = medseg.read(row.folder / row.image_file).oriented("LPS")
    truth = np.asarray(medseg.read(row.folder / row.label_file).oriented("LPS").array) > 0
    mask = medseg.read(row.folder / "scores" / "masks" / f"{row.case}.nii.gz").oriented("LPS")
    found = np.asarray(mask.array) > 0
    at = int((truth != found).sum(axis=(0, 1)).argmax())
    aspect = scan.grid.spacing_mm[1] / scan.grid.spacing_mm[0]
    axes.imshow(
        np.asarray(scan.array)[..., at].T, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], aspect=aspect
    )
    for shape, colour in ((truth, "lime"), (found, "red")):
        if shape[..., at].any():
            axes.contour(shape[..., at].T, [0.5], colors=colour, linewidths=1.2)
    across, down = (np.flatnonzero((truth | found).any(axis=axes_)) for axes_ in ((1, 2), (0, 2)))
    axes.set_xlim(across[0] - MARGIN, across[-1] + MARGIN)
    axes.set_ylim(down[-1] + MARGIN, down[0] - MARGIN)
    axes.set_title(f"{row.kind}, {row.patient}: Dice {row.dice:.3f}", color="white", fontsize=11)
    axes.axis("off")


if __name__ == "__main__":
    main()
