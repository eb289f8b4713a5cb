"""Scores of the three networks and of thresholds, each patient by a model that was trained without it.

python benchmarks/lungs/context/score.py --data ../shared/data --cases CASES.npz --models FOLDER
"""

import argparse
import json
from pathlib import Path

import numpy as np
from train import FOLDS

import medseg
from medseg.evaluation.metrics import dice
from medseg.evaluation.voxel_surface import voxel_distances
from medseg.system.notices import collect_notices


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cases", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--only", nargs="*", help="names of patients")
    a = parser.parse_args()
    cases = np.load(a.cases)
    thresholds = medseg.load_segmenter("threshold")
    for fold in ("one", "two"):
        model = medseg.load_segmenter(a.models / f"{fold}.safetensors")
        for name in FOLDS[fold]:
            if not a.only or name in a.only:
                scan = medseg.read(a.data / "lung_ct_2mm" / name / "ct.nii.gz").oriented("RAS")
                row = {"fold": fold, "case": name}
                for kind, segment in (("networks", model), ("thresholds", thresholds)):
                    with collect_notices() as notices:
                        mask = np.asarray(segment(scan).array)
                    row[kind] = scores(mask, cases[f"{name}/t"], scan.grid.spacing_mm)
                    row[f"{kind} notices"] = [notice.reason for notice in notices]
                print(json.dumps(row), flush=True)


def scores(mask, truth, spacing_mm):
    """Dice of both lungs, of the right and of the left one, and HD95 of both in mm."""
    sides = [round(dice(mask == value, truth == value), 4) for value in (1, 2)]
    distances = voxel_distances(mask > 0, truth > 0, spacing_mm)
    hd95_mm = None if distances is None else round(distances.hd95_mm, 1)
    return [round(dice(mask > 0, truth > 0), 4), *sides, hd95_mm]


if __name__ == "__main__":
    main()
