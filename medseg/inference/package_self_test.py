"""The scan in a package, with which it is tested where it is installed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medseg import io
from medseg.errors import ModelRefused
from medseg.images.grid import Grid
from medseg.images.volume import Mask, Source, Volume
from medseg.inference.model_package import ModelPackage
from medseg.inference.segmenter import Segmenter
from medseg.recipe import Recipe
from medseg.system.notices import collect_notices

MASK = "self-test-mask.nii.gz"
_SIDES = 64
_MOST_DIFFERING = 1e-3
"""Share of the voxels of a label that may differ: engines on other processors round sums otherwise."""


@dataclass(frozen=True)
class SelfTest:
    """How the mask that a package makes of its own scan differs from the mask made at export.

    Attributes:
        differing_voxels: Number of voxels that differ.
        labelled_voxels: Number of voxels with a label in the mask made at export.
        engine: The engine that was used.

    Example:
        >>> medseg.SelfTest(differing_voxels=2, labelled_voxels=1000, engine="onnxruntime").passed
        False
    """

    differing_voxels: int
    labelled_voxels: int
    engine: str

    @property
    def passed(self) -> bool:
        """Whether at most a thousandth of the labelled voxels, or one voxel, differs."""
        return self.differing_voxels <= max(1, _MOST_DIFFERING * self.labelled_voxels)


def check_package(package: str | Path, *, engine: str = "auto") -> SelfTest:
    """A comparison of the mask that a package makes of its scan with the mask made at export.

    Args:
        package: Folder of the package.
        engine: Engine of the networks.

    Raises:
        ModelRefused: a file of the package is missing or damaged (``model-damaged``), or the mask differs in
            more than a thousandth of the labelled voxels (``self-test``).
        UsageError, ResourceError: as :class:`medseg.Segmenter`.

    Example:
        >>> package = medseg.export_model("model.safetensors", "exported")
        >>> medseg.check_package("exported").differing_voxels
        0
    """
    read = ModelPackage.read(package)
    read.check_files()
    segmenter = Segmenter(read.path, device="cpu", engine=engine, any_modality=True)
    with collect_notices():
        made = segmenter(
            [io.read(read.path / f"self-test-{number}.nii.gz") for number in range(len(read.recipe.channels))]
        )
        wanted = np.asarray(io.read_mask(read.path / MASK, made.labels).array)
    differing = int(np.count_nonzero(np.asarray(made.array) != wanted))
    result = SelfTest(differing, int(np.count_nonzero(wanted)), segmenter.engine)
    if not result.passed:
        raise ModelRefused(
            f"the mask of its own scan differs in {differing} voxels from the one made at export, in which "
            f"{result.labelled_voxels} have a label ({segmenter.engine})",
            where=read.path,
            remedy="try another engine, or repeat `medseg export`",
            reason="self-test",
        )
    return result


def synthetic_scan(recipe: Recipe, channel: int) -> Volume:
    """A body with two ellipsoids of air in it, in HU, and noise; made for a test, and anatomy of nobody.

    Args:
        recipe: Its spacing, or 2 mm for pipelines, is that of the scan.
        channel: Number of the channel; each has other noise.
    """
    spacing = recipe.prepare.spacing_mm if recipe.pipeline is None else (2.0, 2.0, 2.0)
    shape = (_SIDES, _SIDES, _SIDES // 2)
    affine = np.diag([*spacing, 1.0])
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    hu = np.where(x**2 / 0.81 + y**2 / 0.64 < 1, 40.0, -1000.0)
    for centre in (-0.42, 0.42):
        hu[((x - centre) / 0.3) ** 2 + (y / 0.5) ** 2 + (z / 0.8) ** 2 < 1] = -850.0
    noise = np.random.default_rng(channel).normal(0, 20, shape)
    voxels: npt.NDArray[np.int16] = np.rint(hu + noise).clip(-1024, 3000).astype(np.int16)
    return Volume(voxels, Grid(shape, affine), Source(modality="unknown"))


def write_self_test(model: Path, recipe: Recipe, folder: Path, *, engine: str = "auto") -> dict[str, str]:
    """Writes a scan and the mask that a model makes of it; returns the SHA-256 of each file.

    Args:
        model: The model file.
        recipe: Its recipe.
        folder: Folder to write to.
        engine: Engine of the networks.
    """
    scans = [synthetic_scan(recipe, channel) for channel in range(len(recipe.channels))]
    with collect_notices():
        mask = Segmenter(model, device="cpu", engine=engine, any_modality=True)(scans)
    images = {f"self-test-{number}.nii.gz": scan for number, scan in enumerate(scans)}
    written: dict[str, Volume | Mask] = {**images, MASK: mask}
    for name, image in written.items():
        io.write(image, folder / name)
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in [*images, MASK]}
