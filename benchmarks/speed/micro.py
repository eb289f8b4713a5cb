"""Compares parts of the pipeline with other libraries on one 512 x 512 x 300 CT.

    python benchmarks/speed/volumes.py --out runs/speed --slices 300
    python benchmarks/speed/micro.py --scan runs/speed/ct_512x512x300.nii.gz [--rounds 5] [PART ...]

Parts: read, write, resample, metrics, components (for restoring, see benchmarks/restore.py). Each library
runs each part in its own process, alternating with the others, so that peak memory can be attributed. Prints
the minimum, median and maximum time, and the memory growth in MB. Imports and inputs are prepared before the
clock starts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

SPACING_MM = (1.5, 1.5, 1.5)

Way = Callable[[Path], Callable[[], object]]
"""Prepares for a scan; the returned function is timed."""


def read_medseg(scan: Path) -> Callable[[], object]:
    import medseg

    return lambda: medseg.read(scan)


def read_nibabel(scan: Path) -> Callable[[], object]:
    import nibabel

    return lambda: nibabel.load(scan).get_fdata()


def read_nibabel_int16(scan: Path) -> Callable[[], object]:
    import nibabel

    return lambda: np.asarray(nibabel.load(scan).dataobj)


def read_simpleitk(scan: Path) -> Callable[[], object]:
    import SimpleITK as sitk  # noqa: N813

    return lambda: sitk.ReadImage(str(scan))


def write_medseg(scan: Path) -> Callable[[], object]:
    import medseg

    mask = _mask(medseg.read(scan))
    return lambda: mask.save(scan.with_name("micro_medseg.nii.gz"))


def write_nibabel(scan: Path) -> Callable[[], object]:
    import nibabel

    import medseg

    mask = _mask(medseg.read(scan))
    image = nibabel.Nifti1Image(np.asarray(mask.array), mask.grid.affine)
    return lambda: nibabel.save(image, scan.with_name("micro_nibabel.nii.gz"))


def write_simpleitk(scan: Path) -> Callable[[], object]:
    import SimpleITK as sitk  # noqa: N813

    import medseg

    image = sitk.GetImageFromArray(np.asarray(_mask(medseg.read(scan)).array).T)
    return lambda: sitk.WriteImage(image, str(scan.with_name("micro_simpleitk.nii.gz")), True)


def resample_medseg(scan: Path) -> Callable[[], object]:
    import medseg
    from medseg.preprocessing.resampling import resample, resampled_grid

    volume = medseg.read(scan)
    target = resampled_grid(volume.grid.oriented("RAS"), SPACING_MM)
    return lambda: resample(volume.array[None], volume.grid, target)


def resample_monai(scan: Path) -> Callable[[], object]:
    from monai.transforms import Compose, EnsureChannelFirst, LoadImage, Orientation, Spacing

    image = Compose([LoadImage(image_only=True), EnsureChannelFirst()])(str(scan))
    turned = Compose([Orientation("RAS"), Spacing(SPACING_MM, mode="bilinear")])
    return lambda: turned(image)


def resample_simpleitk(scan: Path) -> Callable[[], object]:
    import SimpleITK as sitk  # noqa: N813

    image = sitk.ReadImage(str(scan))
    filter_ = sitk.ResampleImageFilter()
    filter_.SetReferenceImage(image)
    filter_.SetOutputSpacing(SPACING_MM)
    filter_.SetSize(
        [
            round(n * mm / to)
            for n, mm, to in zip(image.GetSize(), image.GetSpacing(), SPACING_MM, strict=True)
        ]
    )
    return lambda: filter_.Execute(image)


def resample_scipy_order_1(scan: Path) -> Callable[[], object]:
    from scipy import ndimage

    import medseg

    volume = medseg.read(scan)
    array = np.array(volume.array)
    zoom = [mm / to for mm, to in zip(volume.grid.spacing_mm, SPACING_MM, strict=True)]
    return lambda: ndimage.zoom(array, zoom, output=np.float32, order=1)


def metrics_medseg(scan: Path) -> Callable[[], object]:
    import medseg
    from medseg.evaluation.scoring import score

    one, other = _pair(medseg.read(scan))
    return lambda: score(one, other)


def metrics_monai(scan: Path) -> Callable[[], object]:
    import torch
    from monai.metrics import compute_average_surface_distance, compute_dice, compute_hausdorff_distance

    import medseg

    one, other = _pair(medseg.read(scan))
    spacing = list(one.grid.spacing_mm)

    def work() -> None:
        hot = [
            torch.from_numpy(np.stack([mask.of(label.name) for label in mask.labels])[None])
            for mask in (one, other)
        ]
        compute_dice(*hot)
        compute_hausdorff_distance(*hot, include_background=True, percentile=95, spacing=spacing)
        compute_average_surface_distance(*hot, include_background=True, symmetric=True, spacing=spacing)

    return work


def components_medseg(scan: Path) -> Callable[[], object]:
    import medseg
    from medseg.images.run_length import Runs
    from medseg.inference.postprocessing import postprocess

    mask = _mask(medseg.read(scan))
    binary = np.asarray(mask.array) > 0
    return lambda: postprocess(Runs.of(binary), mask.grid, keep_components=2).binary()


def components_monai(scan: Path) -> Callable[[], object]:
    import torch
    from monai.transforms import KeepLargestConnectedComponent

    import medseg

    binary = torch.from_numpy((np.asarray(_mask(medseg.read(scan)).array) > 0)[None])
    largest = KeepLargestConnectedComponent(num_components=2)
    return lambda: largest(binary)


def components_scipy(scan: Path) -> Callable[[], object]:
    from scipy import ndimage

    import medseg

    binary = np.asarray(_mask(medseg.read(scan)).array) > 0

    def work() -> object:
        labels, _ = ndimage.label(binary, np.ones((3, 3, 3)))
        largest = np.argsort(np.bincount(labels.ravel())[1:])[-2:] + 1
        return np.isin(labels, largest)

    return work


WAYS: dict[str, dict[str, Way]] = {
    "read": {
        "medseg": read_medseg,
        "nibabel, get_fdata": read_nibabel,
        "nibabel, int16": read_nibabel_int16,
        "SimpleITK": read_simpleitk,
    },
    "write": {"medseg": write_medseg, "nibabel": write_nibabel, "SimpleITK": write_simpleitk},
    "resample": {
        "medseg": resample_medseg,
        "MONAI": resample_monai,
        "SimpleITK": resample_simpleitk,
        "scipy, order 1": resample_scipy_order_1,
    },
    "metrics": {"medseg": metrics_medseg, "MONAI": metrics_monai},
    "components": {"medseg": components_medseg, "MONAI": components_monai, "scipy": components_scipy},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scan", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", nargs=2, metavar=("PART", "WAY"), help="This process alone; for itself.")
    parser.add_argument("parts", nargs="*", default=list(WAYS))
    arguments = parser.parse_args()
    if arguments.one:
        part, way = arguments.one
        print(json.dumps(once(WAYS[part][way], arguments.scan)))
        return
    print("| part | way | s, min | median | max | ratio, median | MB |\n|---|---|---:|---:|---:|---:|---:|")
    for part in arguments.parts:
        found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS[part]}
        for _ in range(arguments.rounds):
            for way, rounds in found.items():
                words = [__file__, "--scan", arguments.scan, "--one", part, way]
                child = subprocess.run(
                    [sys.executable, "-W", "ignore", *map(str, words)], stdout=subprocess.PIPE, check=True
                )
                rounds.append(tuple(json.loads(child.stdout.splitlines()[-1])))
        for way, rounds in found.items():
            seconds = [each[0] for each in rounds]
            ratios = [each[0] / ours[0] for each, ours in zip(rounds, found["medseg"], strict=True)]
            numbers = [min(seconds), statistics.median(seconds), max(seconds), statistics.median(ratios)]
            cells = " | ".join(f"{number:.2f}" for number in numbers)
            print(f"| {part} | {way} | {cells} | {max(each[1] for each in rounds):.0f} |", flush=True)


def once(way: Way, scan: Path) -> tuple[float, float]:
    """Seconds, and the growth of this process's peak memory in MB."""
    from medseg.system.memory import raise_thresholds

    if way.__name__.endswith("_medseg"):
        raise_thresholds()
    work = way(scan)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on (Linux)
    before_mb = _peak_mb()
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    return seconds, _peak_mb() - before_mb


def _peak_mb() -> float:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    return float(line.split()[1]) / 1024


def _mask(volume: object) -> object:
    """A mask of two ellipsoidal lungs, with specks."""
    import medseg
    from medseg.inference.threshold_segmenter import ThresholdSegmenter

    assert isinstance(volume, medseg.Volume)
    return medseg.Mask(_lungs(volume.grid.shape, 0.0), volume.grid, ThresholdSegmenter.labels)


def _pair(volume: object) -> tuple[object, object]:
    """Two such masks that differ in some surface voxels."""
    import medseg
    from medseg.inference.threshold_segmenter import ThresholdSegmenter

    assert isinstance(volume, medseg.Volume)
    arrays = (_lungs(volume.grid.shape, shift) for shift in (0.0, 0.01))
    one, other = (medseg.Mask(array, volume.grid, ThresholdSegmenter.labels) for array in arrays)
    return one, other


def _lungs(shape: tuple[int, int, int], shift: float) -> np.ndarray:
    x, y, z = np.ogrid[tuple(slice(-1, 1, n * 1j) for n in shape)]
    painted = np.zeros(shape, dtype=np.uint8, order="F")
    for value, middle in ((1, 0.45), (2, -0.45)):
        wave = 1 + 0.05 * np.sin(20 * z + value)
        inside = ((x - middle - shift) / 0.33) ** 2 + (y / 0.45) ** 2 + (z / 0.9) ** 2 < wave
        painted[inside] = value
    return painted


if __name__ == "__main__":
    main()
