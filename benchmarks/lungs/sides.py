"""Measures how often lung is given the wrong side: slabs, lone lungs, strays, turned patients.

    python benchmarks/lungs/sides.py --data ../shared/data [--model lung_ct_context --few]

Without a model, the masks are those of the scans (manual, or made by thresholds), given to the path of a
model with one label "lungs" as if a network had found them; `threshold` makes its own. A model segments
each case; `--few` leaves out those in which the scan is the same, and most slabs. Sides are those of the
whole mask of both lungs without the scan, which a picture of each confirmed. A case is wrong if more than
5 % of the true lung is on the wrong side, and unknown if more than half of it is on neither.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

import medseg
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.run_length import Runs
from medseg.images.volume import Mask, Volume
from medseg.inference.lungs import split_left_right
from medseg.inference.mask_assembly import Target, build_mask
from medseg.inference.registry import SegmentationMethod

Binary = npt.NDArray[np.bool_]
RECIPE = medseg.Recipe.read("lung_ct")
BOTH = (Label(name="lungs", values=(1,)),)
STRAY_MM = 27.4  # radius of a ball of 86 ml


@dataclass(frozen=True)
class Case:
    """A scan (RAS) with a mask as a network may find it, and the true sides."""

    hu: npt.NDArray[np.int16]
    mask: Binary
    right: Binary
    left: Binary
    grid: Grid

    def cut(self, x: slice, y: slice, z: slice) -> Case:
        """A part of it."""
        affine = self.grid.affine.copy()
        affine[:3, 3] = self.grid.world(
            [part.indices(n)[0] for part, n in zip((x, y, z), self.mask.shape, strict=True)]
        )
        mask, right, left = (a[x, y, z] for a in (self.mask, self.right, self.left))
        return Case(self.hu[x, y, z], mask, right, left, Grid(mask.shape, affine))

    def without(self, side: str, *, filled: bool) -> Case:
        """With one lung alone in the mask; the other is filled with soft tissue if asked."""
        gone, kept = (self.right, self.left) if side == "right" else (self.left, self.right)
        none, hu = np.zeros_like(gone), self.hu
        if filled:
            near = ndimage.binary_dilation(gone, iterations=3) & ~ndimage.binary_dilation(kept)
            near &= hu < 0
            noise = np.random.default_rng(0).normal(40, 12, hu.shape).astype(hu.dtype)
            hu = np.where(near | gone, noise, hu)
        right, left = (none, kept) if side == "right" else (kept, none)
        return Case(hu, kept, right, left, self.grid)


def main() -> None:
    """Prints a table of all kinds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="*", help="kinds (first words) to measure")
    parser.add_argument("--patients", nargs="*", help="patients to measure")
    parser.add_argument("--model", help="segment the cases with this model instead")
    parser.add_argument("--few", action="store_true", help="only some of the cases")
    arguments = parser.parse_args()
    segment = arguments.model and medseg.load_segmenter(arguments.model)
    counts: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0, 0, 0, 0.0, 0.0])
    for folder in sorted((arguments.data / "lung_ct_2mm").iterdir()):
        case = loaded(folder)
        if case is None or (arguments.patients and folder.name not in arguments.patients):
            continue
        before = {key: list(value) for key, value in counts.items()}
        for kind, each in chosen(case, arguments.only) if arguments.few else cases(case, arguments.only):
            for method, mask in masks(kind, each) if segment is None else segmented(segment, each):
                count(counts[kind, method], mask, each)
        changed = [
            f"{kind} [{method}] {now[1] - was[1]:.0f}+{now[2] - was[2]:.0f} of {now[0] - was[0]:.0f}"
            for (kind, method), now in counts.items()
            if (was := before.get((kind, method), [0, 0, 0, 0]))[1:3] != now[1:3]
        ]
        print(folder.name, "wrong+unknown:", "; ".join(changed) or "none", flush=True)
    print("\n| kind | path | cases | wrong | unknown | most wrong | ml |\n|---|---|---|---|---|---|---|")
    for (kind, method), (number, wrong, unknown, most, ml) in counts.items():
        row = f"{number:.0f} | {wrong:.0f} | {unknown:.0f} | {100 * most:.1f} % | {ml:.1f}"
        print(f"| {kind} | {method} | {row} |")


def loaded(folder: Path) -> Case | None:
    """The scan of a patient with the mask of both lungs; None if there is no mask."""
    masks = sorted(folder.glob("lung_mask*.nii.gz"))
    if not masks:
        return None
    scan = medseg.read(folder / "ct.nii.gz").oriented("RAS")
    mask = np.asarray(medseg.read_mask(masks[0], BOTH).oriented("RAS").array) > 0
    right, left = (side.binary() for side in split_left_right(Runs.of(mask), scan.grid))
    hu = np.asarray(scan.array).round().astype(np.int16)
    return Case(hu, right | left, right, left, scan.grid)


def masks(kind: str, case: Case) -> Iterator[tuple[str, Mask]]:
    """The masks of a case by the path of a network, and by thresholds where they see the same."""
    scan = Volume(case.hu, case.grid)
    with medseg.collect_notices():
        planes = torch.from_numpy(case.mask.astype(np.float32))[None]
        yield "network", build_mask([(0, planes)], case.grid, Target.of(scan, RECIPE), RECIPE)
        if kind.startswith(("whole", "lone lung, other filled", "half")):
            yield "threshold", medseg.load_segmenter("threshold")(scan)


def segmented(segment: SegmentationMethod, case: Case) -> Iterator[tuple[str, Mask]]:
    """The mask of a case by a model."""
    with medseg.collect_notices():
        yield segment.name, segment(Volume(case.hu, case.grid))


def chosen(case: Case, only: list[str] | None) -> Iterator[tuple[str, Case]]:
    """The cases that differ for a network: without copies of the scan and with one slab of each kind."""
    slabs_of: dict[str, list[Case]] = defaultdict(list)
    for kind, each in cases(case, only or ["whole", "half", "lone", "turned", "slabs", "strays"]):
        if kind.startswith("slab of"):
            slabs_of[kind].append(each)
        elif kind.startswith("stray"):
            if kind.endswith("joined lungs") and not np.array_equal(each.hu, case.hu):
                yield kind, each
        elif not kind.endswith("in the mask only"):
            yield kind, each
    for kind, every in slabs_of.items():
        if not kind.endswith("in the mask only"):
            yield kind, every[len(every) // 2]


def count(row: list[float], mask: Mask, case: Case) -> None:
    """Adds a mask to a row of the table: cases, wrong ones, unknown ones, the largest share and the largest
    volume in ml on the wrong side."""
    painted = np.asarray(mask.array)
    number = max(1, case.right.sum() + case.left.sum())
    wrong = ((painted == 2) & case.right).sum() + ((painted == 1) & case.left).sum()
    missing = ((painted == 0) & (case.right | case.left)).sum()
    row[0] += 1
    row[1] += wrong > 0.05 * number
    row[2] += missing > 0.5 * number
    row[3] = max(row[3], wrong / number)
    row[4] = max(row[4], wrong * case.grid.voxel_ml)


def cases(case: Case, only: list[str] | None) -> Iterator[tuple[str, Case]]:
    """All cases that are made of a patient, with their kinds."""
    for name, kind in KINDS.items():
        if not only or name in only:
            yield from kind(case)


def whole(case: Case) -> Iterator[tuple[str, Case]]:
    """The scan as it is."""
    yield "whole scan", case


def slabs(case: Case) -> Iterator[tuple[str, Case]]:
    """Slabs of 1 to 4 slices in which the lungs touch."""
    for slices in (1, 2, 3, 4):
        for z in range(case.mask.shape[2] - slices + 1):
            both, corners = case.mask[..., z : z + slices], np.ones((3, 3, 3))
            parts, _ = ndimage.label(both, structure=corners)
            right, left = (a[..., z : z + slices] for a in (case.right, case.left))
            if min(right.sum(), left.sum()) < 0.1 * both.sum():
                continue
            if set(np.unique(parts[right])) & set(np.unique(parts[left])):
                yield f"slab of {slices}, touching", case.cut(slice(None), slice(None), slice(z, z + slices))


def lone(case: Case) -> Iterator[tuple[str, Case]]:
    """One lung alone: in the mask, and in the scan, whole and as slabs."""
    for side in ("left", "right"):
        for filled, text in ((False, "in the mask only"), (True, "other filled")):
            alone = case.without(side, filled=filled)
            yield f"lone lung, {text}", alone
            heights = np.flatnonzero(alone.mask.any(axis=(0, 1)))
            for z in heights[5:-5:9]:
                yield f"slab of 2, lone lung, {text}", alone.cut(slice(None), slice(None), slice(z, z + 2))


def half(case: Case) -> Iterator[tuple[str, Case]]:
    """A field of view of one half of the chest, with and without the spine."""
    middle = round((np.argwhere(case.right)[:, 0].mean() + np.argwhere(case.left)[:, 0].mean()) / 2)
    for beyond_mm, text in ((30, "with the spine"), (-25, "without the spine")):
        beyond = round(beyond_mm / case.grid.spacing_mm[0])
        right, left = case.without("left", filled=False), case.without("right", filled=False)
        every = slice(None)
        yield f"half a chest, {text}", right.cut(slice(middle - beyond, None), every, every)
        yield f"half a chest, {text}", left.cut(slice(0, middle + beyond), every, every)


def turned(case: Case) -> Iterator[tuple[str, Case]]:
    """A patient who lies turned by 20 or 30 degrees, whole and with a lone lung."""
    for degrees in (-30, 20):
        hu = ndimage.rotate(case.hu, degrees, reshape=False, order=1, cval=-1000)
        right, left = (
            ndimage.rotate(a.astype(np.uint8), degrees, reshape=False, order=0) > 0
            for a in (case.right, case.left)
        )
        both = Case(hu, right | left, right, left, case.grid)
        yield "turned by 20 or 30 degrees", both
        for side in ("left", "right"):
            yield "turned, lone lung", both.without(side, filled=True)


def strays(case: Case) -> Iterator[tuple[str, Case]]:
    """A ball of 86 ml of air in the mask, in six places, beside joined, separate and lone lungs."""
    joined = Case(case.hu, bridged(case), case.right, case.left, case.grid)
    lones = [case.without(side, filled=True) for side in ("left", "right")]
    for place, ball, painted in places(case):
        for each, text in ((joined, "joined lungs"), *((a, "lone lung") for a in lones)):
            hu = np.where(ball & painted, -1000, each.hu).astype(np.int16)
            yield f"stray {place}, {text}", Case(hu, each.mask | ball, each.right, each.left, each.grid)


def places(case: Case) -> Iterator[tuple[str, Binary, bool]]:
    """Balls in six places, and whether gas must be painted there."""
    parts, _ = ndimage.label(case.hu > -500)
    body = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    x, y, z = (np.flatnonzero(body.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3))
    lungs = [np.argwhere(side) for side in (case.right, case.left)]
    height = int(np.concatenate(lungs)[:, 2].mean())
    step = case.grid.spacing_mm
    far = [round((STRAY_MM + 8) / mm) for mm in step]
    centre = [int((a[0] + a[-1]) / 2) for a in (x, y, z)]
    level = body[..., height]
    columns, rows = np.flatnonzero(level.any(axis=1)), np.flatnonzero(level.any(axis=0))
    base = int(np.percentile(lungs[1][:, 2], 1))
    for name, at, painted in (
        ("in front of the body", (centre[0], rows[-1] + far[1], height), False),
        ("beside the right arm", (columns[-1] + far[0], centre[1], height), False),
        ("beside the left arm", (columns[0] - far[0], centre[1], height), False),
        ("in the table", (centre[0] + far[0], rows[0] - far[1], height), True),
        (
            "in the stomach",
            (int(lungs[1][:, 0].mean()), int(lungs[1][:, 1].mean()) + far[1], base - far[2]),
            True,
        ),
        (
            "in the colon",
            (int(lungs[0][:, 0].mean()), int(lungs[0][:, 1].mean()) + far[1], base - far[2]),
            True,
        ),
    ):
        grids = np.ogrid[tuple(slice(0, n) for n in case.mask.shape)]
        ball = sum(((g - a) * mm) ** 2 for g, a, mm in zip(grids, at, step, strict=True)) <= STRAY_MM**2
        ball &= ~ndimage.binary_dilation(case.mask, iterations=2)
        if ball.sum() * case.grid.voxel_ml > 55:
            yield name, ball, painted


def bridged(case: Case) -> Binary:
    """The mask with a rod of 10 mm between the two nearest points of the lungs."""
    distance, nearest = ndimage.distance_transform_edt(
        ~case.left, sampling=case.grid.spacing_mm, return_indices=True
    )
    at = np.unravel_index(np.where(case.right, distance, np.inf).argmin(), case.mask.shape)
    other = [axis[at] for axis in nearest]
    rod = np.zeros_like(case.mask)
    for share in np.linspace(0, 1, 200):
        rod[tuple(round(a + share * (b - a)) for a, b in zip(at, other, strict=True))] = True
    near = ndimage.distance_transform_edt(~rod, sampling=case.grid.spacing_mm) <= 5
    return np.asarray(case.mask | near)


def orientations(case: Case) -> Iterator[tuple[str, Case]]:
    """A touching slab, a lone lung and a stray in each of 48 orders and directions of the axes."""
    some = [next(iter(slabs(case)), None), list(lone(case))[-1], list(strays(case))[1]]
    for each in (each for _, each in filter(None, some)):
        yield from (("48 orientations", one) for one in oriented(each))


def patient(case: Case) -> Iterator[tuple[str, Case]]:
    """The scan as it is in each of 48 orders and directions of the axes."""
    yield from (("whole scan, 48 orientations", one) for one in oriented(case))


def oriented(case: Case) -> Iterator[Case]:
    """A case in each of 48 orders and directions of the axes."""
    for order, signs in product(permutations(range(3)), product("+-", repeat=3)):
        codes = "".join(
            ("LR", "PA", "IS")[axis][sign == "+"] for axis, sign in zip(order, signs, strict=True)
        )
        grid = case.grid.oriented(codes)
        moves, flips = case.grid.moves_to(codes)
        axes = tuple(n for n, flip in enumerate(flips) if flip)
        hu, mask, right, left = (
            np.flip(a.transpose(moves), axes) for a in (case.hu, case.mask, case.right, case.left)
        )
        yield Case(hu, mask, right, left, grid)


KINDS = {
    "whole": whole,
    "slabs": slabs,
    "lone": lone,
    "half": half,
    "turned": turned,
    "strays": strays,
    "orientations": orientations,
    "patient": patient,
}


if __name__ == "__main__":
    main()
