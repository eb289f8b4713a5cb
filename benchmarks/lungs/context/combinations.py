"""The method of lung_ct_context beside simpler combinations of its networks, on patients new to all of them.

    python benchmarks/lungs/context/combinations.py --data ../shared/data \\
        --model runs/context/one.safetensors \\
        --slices runs/lungs/lung_ct/fold0/run/model.safetensors LCTSC-000 LCTSC-004

``--model`` is a fold of train.py, ``--slices`` one of benchmarks/lungs/model.py, both trained without the
patients. A line of JSON for each patient: Dice of both lungs, HD95 in mm, and Dice of the voxels below
-500 HU, of the method, the slice network alone, a gate (its voxels within 6 mm of the two largest parts of
the coarse network, without fat), a vote of thresholds, slices and coarse network, the coarse network alone,
and thresholds.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from scipy import ndimage

import medseg
from medseg.evaluation.metrics import dice
from medseg.evaluation.voxel_surface import voxel_distances
from medseg.inference import segmenter, two_stage
from medseg.inference.mask_assembly import Target, build_mask
from medseg.system.notices import collect_notices

GATE_MM = 6.0
FAT_HU = (-150, -30)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--slices", type=Path, required=True)
    parser.add_argument("patients", nargs="+")
    chosen = parser.parse_args()
    segmenter.SLICES = chosen.slices
    seen = []
    combine = two_stage.combine_evidence
    two_stage.combine_evidence = lambda evidence: (seen.append(evidence), combine(evidence))[1]
    network, thresholds = medseg.Segmenter(chosen.model), medseg.load_segmenter("threshold")
    for name in chosen.patients:
        folder = chosen.data / "lung_ct_2mm" / name
        scan = medseg.read(folder / "ct.nii.gz").oriented("RAS")
        lungs = (medseg.Label(name="lungs", values=(1, 2)),)
        truth = np.asarray(medseg.read_mask(folder / "lung_mask.nii.gz", lungs).oriented("RAS").array) > 0
        with collect_notices():
            masks = {"method": network(scan), "thresholds": thresholds(scan)}
            evidence = seen.pop()
            recipe = network.assembly
            for kind, likely in combinations(evidence).items():
                planes = [(0, likely[None].astype(np.float32))]
                masks[kind] = build_mask(planes, evidence.grid, Target.of(scan, recipe), recipe)
        found = {kind: scores(np.asarray(mask.array) > 0, truth, scan) for kind, mask in masks.items()}
        print(json.dumps({"case": name} | found), flush=True)


def combinations(evidence):
    """Probabilities of lung on the grid of the evidence, by combination."""
    parts, count = ndimage.label(evidence.coarse > 0.5)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
    coarse = np.isin(parts, np.argsort(sizes)[::-1][:2] + 1)
    near = ndimage.distance_transform_edt(~coarse, sampling=evidence.grid.spacing_mm) <= GATE_MM
    fat = (evidence.hu > FAT_HU[0]) & (evidence.hu < FAT_HU[1])
    votes = (evidence.dark[0] | evidence.dark[1]).astype(int) + (evidence.slices > 0.5) + coarse
    return {
        "slices": evidence.slices,
        "gate": np.where(near & ~fat, evidence.slices, 0),
        "vote": votes >= 2,
        "coarse": np.where(coarse, np.maximum(evidence.coarse, 0.51), np.minimum(evidence.coarse, 0.49)),
    }


def scores(mask, truth, scan):
    """Dice, HD95 in mm, and Dice of the voxels below -500 HU."""
    distances, air = voxel_distances(mask, truth, scan.grid.spacing_mm), np.asarray(scan.array) < -500
    hd95_mm = None if distances is None else round(distances.hd95_mm, 1)
    return [round(dice(mask, truth), 4), hd95_mm, round(dice(mask & air, truth & air), 4)]


if __name__ == "__main__":
    main()
