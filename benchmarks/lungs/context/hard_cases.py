"""Scores on difficulties made from real scans, so that the mask is exact, by networks without that patient.

python benchmarks/lungs/context/hard_cases.py --cases CASES.npz --models FOLDER --only LCTSC-004/junction

`junction` brings the lungs together in front, `outside` adds a hollow table and a cover with air below it,
`small_gas` three bubbles of at most 50 ml under the lungs, `bulla` an empty space of 35 to 60 mm in a lung.
The others are described in samples.py.
"""

import argparse
import json
import zlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from samples import MM, RANGE, Case, Maker, unit
from score import scores
from train import FOLDS

import medseg
from medseg.evaluation.metrics import dice
from medseg.images.grid import Grid
from medseg.images.volume import Volume
from medseg.system.notices import collect_notices

SIZE = (256, 192, 176)
NEW = ("junction", "outside", "aorta", "small_gas", "bulla", "emphysema", "pneumothorax")
RAISED = {"raised_left": {2: 75}, "raised_right": {1: 65}}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--only", nargs="*", help="PATIENT/KIND or PATIENT/KIND/SEED")
    a = parser.parse_args()
    cases, models = np.load(a.cases), {}
    wanted = a.only or [f"{name}/{kind}" for f in ("one", "two") for name in FOLDS[f] for kind in NEW]
    for each in wanted:
        name, kind, *seed = each.split("/")
        fold = next(f for f in ("one", "two") if name in FOLDS[f])
        if fold not in models:
            models = {fold: medseg.load_segmenter(a.models / f"{fold}.safetensors")}
        seed = int(seed[0]) if seed else zlib.crc32(each.encode()) % 10000
        scan, truth = hard_case(Case(name, *(cases[f"{name}/{k}"] for k in "qts"), "cpu"), kind, seed)
        row = {"case": name, "kind": kind, "seed": seed}
        segmenters = {"networks": models[fold], "thresholds": medseg.load_segmenter("threshold")}
        for label, segment in segmenters.items():
            with collect_notices() as notices:
                mask = np.asarray(segment(scan).array)
            air = scan.array < -500
            exchanged = (mask == 1) & (truth == 2) | (mask == 2) & (truth == 1)
            row[label] = [
                *scores(mask, truth, scan.grid.spacing_mm),
                round(dice((mask > 0) & air, (truth > 0) & air), 4),
                round(float(exchanged.sum() * scan.grid.voxel_ml), 1),
            ]
            row[f"{label} notices"] = [notice.reason for notice in notices]
        print(json.dumps(row), flush=True)


def hard_case(case, kind, seed):
    """A CT at 2 mm with one difficulty, and its mask: 1 right, 2 left."""
    m = Maker(SIZE, torch.device("cpu"), seed)
    image, right, left = m.shaped(case, plain=True, raised=RAISED.get(kind, {}))
    if kind == "junction":
        image, right, left = joined_in_front(m, image, right, left)
    elif kind == "outside":
        image = covered(m, m.table(image))
    elif kind == "small_gas":
        image = bubbles(m, image, right, left)
    elif kind == "bulla":
        image = bulla(m, image, right, left)
    elif kind == "fat_pads":
        for _ in range(3):
            image, right, left = m.fat_pad(image, right, left)
    elif kind in ("hilar_mass", "aorta"):
        image, right, left = m.mediastinal_mass(image, right, left, tube=kind == "aorta")
    elif kind == "gas":
        image = m.gas(image, right, left)
    elif kind in m.DISEASES:
        image = m.disease(image, right, left, kind)
    hu = (image[0].clamp(0, 1) * RANGE - 1024).round().numpy().astype(np.int16)
    truth = (right.int() + 2 * left.int())[0].numpy().astype(np.uint8)
    return Volume(np.asfortranarray(hu), Grid(hu.shape, np.diag([MM, MM, MM, 1.0]))), truth


def joined_in_front(m, image, right, left):
    """The lungs brought to 2 mm of one another in the front half of the chest, where they are near."""
    at = torch.arange(SIZE[0], dtype=torch.float32).view(-1, 1, 1)
    a = torch.where(left[0], at, -1.0).amax(0)  # inner edges of the lungs, (Y, Z); x grows to the right
    b = torch.where(right[0], at, 1e6).amin(0)
    y = torch.arange(SIZE[1]).view(-1, 1)
    rows = (left | right)[0].any(0)
    front = torch.where(rows, y, -1).amax(0)
    back = torch.where(rows, y, SIZE[1]).amin(0)
    near = (a >= 0) & (b < 1e6) & (b > a) & (b - a < 70 / MM) & (y > (front + back) / 2)
    weight = smooth(near.float())
    share = smooth(near.float()).clamp(1e-3)
    a, b = (smooth(torch.where(near, v, 0.0)) / share for v in (a, b))
    middle, half = (a + b) / 2, (b - a).clamp(min=2.0) / 2
    narrow = half + (0.5 - half) * (1.6 * weight - 0.5).clamp(0, 1)
    reach = 25.0  # voxels beside the gap over which the lungs are stretched
    off = at - middle
    inner = off / narrow * half
    outer = torch.sign(off) * (half + (off.abs() - narrow) * reach / (reach + half - narrow))
    moved = torch.where(off.abs() < narrow, inner, outer)
    source = torch.where(off.abs() < half + reach, middle + moved, at)
    grid = torch.stack(
        [
            ((m.z / MM + (SIZE[2] - 1) / 2) / (SIZE[2] - 1) * 2 - 1).expand(SIZE),
            ((m.y / MM + (SIZE[1] - 1) / 2) / (SIZE[1] - 1) * 2 - 1).expand(SIZE),
            source / (SIZE[0] - 1) * 2 - 1,
        ],
        -1,
    )[None]

    def sampled(values):
        return F.grid_sample(values.float()[None], grid, mode="bilinear", align_corners=True)[0]

    return sampled(image), sampled(right) >= 0.5, sampled(left) >= 0.5


def smooth(flat):
    """A plane of values blurred over some 30 mm."""
    values = flat[None, None]
    for _ in range(3):
        values = F.avg_pool2d(values, 11, 1, 5, count_include_pad=True)
    return values[0, 0]


def covered(m, image):
    """A blanket over the patient, with air below it that is not connected to the air outside in any slice."""
    body = m.blur(image > unit(-300), 2) > 0.6
    over = m.grown(body, int(m.rng.integers(6, 14)))
    over |= over.flip(2).cummax(2).values.flip(2) & (m.y[None] < 40)  # down to the table
    blanket = m.grown(over, 1) & ~over & ~m.grown(body, 1)
    return m.put(image, blanket.float(), m.u(-300, 0) + 20 * m.white())


def bubbles(m, image, right, left):
    """Three bubbles of gas of 5 to 45 ml, 6 to 20 mm below the lungs."""
    lungs = right | left
    near = m.grown(lungs, 2)
    below = torch.zeros_like(lungs)
    for up in range(4, 11):
        below[..., :-up] |= lungs[..., up:]
    soft = (image > unit(-200)) & (image < unit(150)) & ~near
    where = below & soft & ~(lungs[..., None].flatten(3).cumsum(3) > 0)
    for _ in range(3):
        at = m.any_of(where)
        if at is None:
            break
        blob = m.blob(at[0], m.u(10.5, 22) * m.rng.uniform(0.85, 1.15, 3)) & ~near
        image = m.put(image, m.blur(blob) * ~near, m.u(-1010, -930) + 12 * m.white())
    return image


def bulla(m, image, right, left):
    """An empty space of 35 to 60 mm at the upper edge of a lung, which belongs to the lung."""
    lungs = right | left
    zs = lungs[0].any(0).any(0).nonzero()
    level = (float(zs[0] + 2 * zs[-1]) / 3 - (SIZE[2] - 1) / 2) * MM
    at = m.any_of(lungs & (m.z[None] > level) & (m.blur(lungs, 3) < 0.95))
    blob = m.blob(at[0], m.u(17, 30) * m.rng.uniform(0.9, 1.1, 3), 0.05) & lungs
    return m.put(image, m.blur(blob) * blob, m.u(-1015, -980) + 12 * m.white())


if __name__ == "__main__":
    main()
