"""Masks by lungmask itself, of scans and networks that this script makes: the truth of equality tests.

Run it with a Python that has ``lungmask`` (not medseg's own): ``python oracle.py FOLDER [CASE ...]``. Each
case becomes a folder with ``model.pth`` (and ``fill.pth``), ``scan.nii.gz``, and ``mask.nii.gz`` by the
package's own ``LMInferer`` on the CPU.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch
from lungmask import LMInferer, utils
from lungmask.resunet import UNet

# Classes with the background, whether there is a fill model, shape (x, y, z), and direction of the scan.
CASES: dict[str, dict[str, Any]] = {
    "r231": {"classes": 3},
    "lobes": {"classes": 6, "shape": (5, 150, 140), "direction": (0, 1, 0, 0, 0, -1, -1, 0, 0)},
    "fused": {"classes": 6, "fill": 3, "shape": (140, 130, 4), "direction": (-1, 0, 0, 0, -1, 0, 0, 0, 1)},
    "single": {"classes": 3, "shape": (140, 160, 1)},
    "small": {"classes": 3, "shape": (90, 70, 4)},
    "large": {"classes": 3, "shape": (300, 280, 3)},
    "air": {"classes": 3, "air": True},
    "trained": {"classes": 3, "steps": 25},
    "trained_lobes": {"classes": 6, "steps": 25},
}


def scan(case: dict[str, Any]) -> sitk.Image:
    """A body with two lungs, a table and noise, int16."""
    rng = np.random.default_rng(11)
    x, y, z = case.get("shape", (180, 160, 6))
    direction = np.reshape(case.get("direction", np.eye(3).ravel()), (3, 3)).astype(float)
    ax, ay, az = (np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in (x, y, z))
    w = np.stack(np.meshgrid(az, ay, ax, indexing="ij")[::-1]).reshape(3, -1)
    px, py, pz = (direction @ w).reshape(3, z, y, x)
    values = np.full((z, y, x), -1000.0)
    if not case.get("air"):
        values[(px / 0.85) ** 2 + (py / 0.65) ** 2 < 1] = 30
        for side in (-1, 1):
            values[((px - 0.4 * side) / 0.27) ** 2 + (py / 0.42) ** 2 < 1 - 0.3 * pz**2] = -820
        values[(py > 0.8) & (py < 0.84)] = -100
    values += rng.normal(size=values.shape) * 4
    image = sitk.GetImageFromArray(values.round().astype(np.int16))
    image.SetSpacing((1.5, 1.7, 4.0))
    image.SetDirection(direction.ravel().tolist())
    return image


@torch.no_grad()
def network(classes: int, seed: int) -> UNet:
    """lungmask's network with random weights and no class that wins everywhere."""
    torch.manual_seed(seed)
    made = UNet(
        n_classes=classes, padding=True, depth=5, wf=2, up_mode="upsample", batch_norm=True, residual=False
    )
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.bias, std=0.2)
    made.train()
    smooth = torch.nn.functional.interpolate(torch.randn(4, 1, 16, 16), size=256, mode="bilinear")
    for _ in range(30):
        made(smooth * 0.4 + 0.4)  # the running means of the normalisation
    made.eval()
    logits = made(smooth * 0.4 + 0.4)
    made.last.bias -= logits.mean(dim=(0, 2, 3))
    return made


def train(made: UNet, image: sitk.Image, classes: int, steps: int) -> UNet:
    """The network after some steps on the slices of a scan, whose labels are lung, body and table."""
    slices, _ = utils.preprocess(sitk.GetArrayFromImage(image), resolution=[256, 256])
    hu = torch.from_numpy(np.asarray(slices, np.float32).clip(-1024, 600))
    labels = torch.bucketize(hu, torch.tensor([-950.0, -500.0, -50.0]))  # air, lung, table, body
    labels = torch.tensor([0, 1, 3, 2])[labels].clamp(max=classes - 1)
    softmax, made.softmax = made.softmax, torch.nn.Identity()
    optimizer = torch.optim.Adam(made.parameters(), lr=0.01)
    made.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(made((hu[:, None] + 1024) / 1624), labels)
        loss.backward()
        optimizer.step()
    made.softmax = softmax
    return made.eval()


def run(folder: Path, case: dict[str, Any]) -> None:
    """Writes networks, scan and mask of a case."""
    folder.mkdir(parents=True)
    networks = [network(case["classes"], 5)] + ([network(case["fill"], 8)] if "fill" in case else [])
    image = scan(case)
    if "steps" in case:
        networks[0] = train(networks[0], image, case["classes"], case["steps"])
    for made, name in zip(networks, ("model", "fill"), strict=False):
        torch.save(made.state_dict(), folder / f"{name}.pth")
    sitk.WriteImage(image, str(folder / "scan.nii.gz"))
    image = sitk.ReadImage(str(folder / "scan.nii.gz"))
    inferer = LMInferer.__new__(LMInferer)
    inferer.fillmodel = "fill" if "fill" in case else None
    inferer.modelname, inferer.batch_size, inferer.volume_postprocessing = "model", 1, True
    inferer.force_cpu = inferer.tqdm_disable = True
    inferer.device = torch.device("cpu")
    inferer.model = networks[0]
    inferer.fillmodelm = networks[1] if "fill" in case else None
    mask = sitk.GetImageFromArray(inferer.apply(image))
    mask.CopyInformation(image)
    sitk.WriteImage(mask, str(folder / "mask.nii.gz"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    for wanted in sys.argv[2:] or CASES:
        run(Path(sys.argv[1]) / wanted, CASES[wanted])
