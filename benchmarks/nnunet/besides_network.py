"""medseg beside nnU-Net in everything that is not the network: from scan to mask, with many classes.

    python benchmarks/nnunet/besides_network.py --peer PYTHON_OF_NNUNET --out FOLDER \
        [--shape 256 256 128] [--spacing 1.5 1.5 2] [--classes 118] [--rounds 2]

A phantom's chest and a plain nnU-Net of three resolutions (4 to 16 maps) with random weights at 3 mm, as
coarse as TotalSegmentator's fast task. Processes run one after the other, A B A B, each from start to written
mask. Every call of the network is timed inside of its process, and subtracted from the time of the process.
medseg runs once before, so that no graph is exported meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np

import medseg

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", help="a Python with nnunetv2; without it only medseg runs")
    parser.add_argument("--out", type=Path, default=Path("runs/besides_network"))
    parser.add_argument("--shape", type=int, nargs=3, default=[256, 256, 128])
    parser.add_argument("--spacing", type=float, nargs=3, default=[1.5, 1.5, 2.0])
    parser.add_argument("--classes", type=int, default=118, help="with the background")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--segment", type=Path, nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.segment:
        segment(*arguments.segment)
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    compare(arguments)


def compare(arguments: argparse.Namespace) -> None:
    """Makes scan and model, runs both programs in turn, and prints each run and the ratios."""
    out = arguments.out
    scan = out / f"scan_{'x'.join(map(str, arguments.shape))}.nii.gz"
    folder, model = out / f"classes_{arguments.classes}", out / f"classes_{arguments.classes}.safetensors"
    if not scan.exists():
        medseg.write(chest(arguments.shape, arguments.spacing), scan)
    peer = [arguments.peer, str(HERE / "peer.py")]
    if not folder.exists():
        subprocess.run([*peer, "make", str(folder), str(arguments.classes)], check=True)
    if not model.exists():
        medseg.import_model(folder, output=model, mirror=False)  # as peer.py
    mine, other = out / "ours.nii.gz", out / "theirs.nii.gz"
    programs = {"medseg": [sys.executable, __file__, "--segment", str(model), str(scan), str(mine)]}
    if arguments.peer:
        theirs = [*peer, "segment", str(folder), str(scan), str(other), str(arguments.classes)]
        programs = {"nnU-Net": theirs} | programs
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in programs}
    measured(programs["medseg"], out / "network.json")
    for _ in range(arguments.rounds):
        for name, command in programs.items():
            runs[name].append(measured(command, out / "network.json"))
            print(name, json.dumps(runs[name][-1]), flush=True)
    for fact in runs["medseg"][0]:
        row = {name: [run[fact] for run in each] for name, each in runs.items()}
        spread = "; ".join(f"{name} {min(v):.2f}, {median(v):.2f}, {max(v):.2f}" for name, v in row.items())
        ratio = (
            f", ratio of medians {median(row['nnU-Net']) / median(row['medseg']):.1f}"
            if arguments.peer
            else ""
        )
        print(f"{fact} (min, median, max): {spread}{ratio}")
    if arguments.peer:
        masks = [np.asarray(medseg.read(path).array) for path in (mine, other)]
        print(f"{np.count_nonzero(masks[0] != masks[1])} of {masks[0].size} voxels differ")


def chest(shape: list[int], spacing: list[float]) -> medseg.Volume:
    """A CT of the phantom's chest, which is as wide as the scan."""
    from medseg.phantom.thorax import Thorax, default_grid

    grid = default_grid(tuple(spacing))
    size = np.array(shape)
    affine = grid.affine.copy()
    middle = affine[:3, :3] @ ((np.array(grid.shape) - size) / 2)
    affine[:3, 3] += middle
    return Thorax().scan(medseg.Grid(tuple(shape), affine))


def measured(command: list[str], times: Path) -> dict[str, float]:
    """Seconds and memory of a process, in all and without its network."""
    times.unlink(missing_ok=True)
    begin = time.perf_counter()
    silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    environment = os.environ | {"NETWORK_TIMES": str(times)}
    pid = os.posix_spawn(command[0], command, environment, file_actions=silent)
    _, status, usage = os.wait4(pid, 0)
    wall, cpu = time.perf_counter() - begin, usage.ru_utime + usage.ru_stime
    if status:
        raise SystemExit(f"{' '.join(command)} ended with status {status}")
    network = json.loads(times.read_text())
    return {
        "besides wall s": wall - network["wall"],
        "besides CPU s": cpu - network["cpu"],
        "network wall s": network["wall"],
        "network CPU s": network["cpu"],
        "peak GiB": usage.ru_maxrss / 2**20,
    }


def segment(model: Path, scan: Path, mask: Path) -> None:
    """Writes medseg's mask, and the time of its network."""
    from network_time import NetworkTime

    from medseg.inference.nnunet import runtime

    spent = NetworkTime()
    plain = runtime.logit_planes

    def timed(image, networks, **options):
        return plain(image, [spent.timed(network) for network in networks], **options)

    runtime.logit_planes = timed
    medseg.write(medseg.Segmenter(model)(medseg.read(scan)), mask)
    spent.write()


if __name__ == "__main__":
    main()
