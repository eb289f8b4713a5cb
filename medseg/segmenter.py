"""The heart: a model applied to a scan gives a mask on the scan's own grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from medseg.errors import InputRefused, UsageError
from medseg.model import Model
from medseg.postprocess import postprocess
from medseg.prepare import Prepared, prepare
from medseg.restore import binary, most_probable
from medseg.sliding import logits, probabilities_of
from medseg.volume import Mask, Volume

# NIfTI, NRRD and MetaImage do not say what made the scan; OT is DICOM's "other".
_UNSAID = (None, "unknown", "OT")


class Segmenter:
    """Segments scans with one model, which is loaded once.

    >>> segment = Segmenter("runs/lungs/model.safetensors")  # doctest: +SKIP
    >>> mask = segment(medseg.read("chest.nii.gz"))          # doctest: +SKIP

    Args:
        model: A :class:`Model`, a model file, or the name of a shipped model.
        device: Where the network runs, as torch names it.

    Raises:
        UsageError: no such model or device.
        ModelRefused: the model file is damaged or does not fit.
    """

    def __init__(self, model: Model | str | Path, *, device: str = "cpu", any_modality: bool = False) -> None:
        self.model = model if isinstance(model, Model) else Model.load(model)
        try:
            self.device = torch.device(device)
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise UsageError(
                f"no device {device!r}: {str(error).splitlines()[0][:80]}",
                where="device",
                remedy="use cpu",
                reason="device",
            ) from None
        self.any_modality = any_modality
        self._networks = [network.to(self.device) for network in self.model.networks()]

    def __call__(self, scan: Volume | Sequence[Volume]) -> Mask:
        """The mask of one scan, on exactly its grid.

        Args:
            scan: A volume, or one volume a channel, all on one grid.

        Raises:
            InputRefused: the channels are not the recipe's, or the scan says it is of another
                modality than the model's.
        """
        volumes = (scan,) if isinstance(scan, Volume) else tuple(scan)
        for volume in volumes:
            found, wanted = volume.source.modality, self.model.recipe.modality
            if found not in (*_UNSAID, wanted) and not self.any_modality:
                raise InputRefused(
                    f"the scan is {found}, the model is for {wanted}",
                    where=volume.source.path,
                    remedy="choose a model for this kind of scan, or say --any-modality",
                    reason="modality",
                )
        prepared = prepare(self.model.recipe, volumes)
        return self.mask(self.probabilities(prepared), prepared, volumes[0])

    def probabilities(self, prepared: Prepared) -> torch.Tensor:
        """float32 (L, X, Y, Z) on the prepared grid: of the folds' mean logits."""
        recipe = self.model.recipe
        image = prepared.image.to(self.device)
        total = torch.zeros(())
        for network in self._networks:
            total = total.to(self.device) + logits(
                image, network, labels=len(recipe.labels), patch=recipe.patch, predict=recipe.predict
            )
        return probabilities_of(total / len(self._networks), recipe).cpu()

    def mask(self, probabilities: torch.Tensor, prepared: Prepared, scan: Volume) -> Mask:
        """Probabilities on the prepared grid, restored, decided on, cleaned and painted.

        A voxel belongs to each label whose probability reaches the threshold; where labels
        exclude one another, to the most probable one, if that is more probable than none.
        """
        recipe = self.model.recipe
        top = max(label.value for label in recipe.labels)
        painted: npt.NDArray[np.uint8 | np.uint16] = np.zeros(
            scan.grid.shape, dtype=np.uint8 if top < 256 else np.uint16, order="F"
        )
        best = most_probable(probabilities, prepared.grid, scan.grid) if recipe.exclusive else None
        for number, (label, channel) in enumerate(zip(recipe.labels, probabilities, strict=True), start=1):
            if best is None:
                found = binary(channel, prepared.grid, scan.grid, threshold=recipe.predict.threshold)
            else:
                found = best == number
            rules = recipe.postprocess
            found = postprocess(
                found,
                scan.grid,
                keep_components=rules.keep_components,
                fill_holes=rules.fill_holes,
                min_volume_ml=rules.min_volume_ml,
            )
            painted[found] = label.value
        return Mask(painted, scan.grid, recipe.labels, scan.source)
