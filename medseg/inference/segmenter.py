"""A trained model applied to a scan: the mask on the scan's own grid."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from medseg.datasets.validation import check_hu_units
from medseg.errors import InputRefused, UsageError
from medseg.images.grid import Grid
from medseg.images.label import Label
from medseg.images.volume import Mask, Volume
from medseg.inference.backends import Engine, load
from medseg.inference.backends.network_source import FoldNetwork, graph_forms, window_shape
from medseg.inference.ensemble_runtime import EnsembleRuntime
from medseg.inference.lobe_checks import lobe_findings
from medseg.inference.lung_evidence import RULES
from medseg.inference.mask_assembly import Target, build_mask
from medseg.inference.model_file import ModelFile
from medseg.inference.model_package import ModelPackage, read_model
from medseg.inference.native_grid import restored
from medseg.inference.network_planes import device_probability_planes, probability_planes
from medseg.inference.pipelines import PipelineRuntime, PreparedPipeline, pipeline_runtime
from medseg.inference.prediction import Prediction, PreparedScan
from medseg.inference.restored_tile import Planes
from medseg.inference.scan_checks import check_finite
from medseg.inference.two_stage import Found, TwoStage
from medseg.inference.uncertainty import Entropy
from medseg.io.label_maps import has_label_values
from medseg.preprocessing.preparation import Prepared, check_channels, prepare
from medseg.recipe import EnsemblePipeline, Recipe
from medseg.system.devices import checked, resolved
from medseg.system.notices import Notice, collect_notices, notify, send

if TYPE_CHECKING:
    from torch import nn

    from medseg.inference.model import Model

SLICES = "lung_ct"
"""The shipped model of slices that models with a section ``context`` use as well."""

# NIfTI, NRRD and MetaImage do not record the modality; OT is DICOM's "other".
_UNKNOWN_MODALITY = (None, "unknown", "OT")


class Segmenter:
    """Segments scans with one model, which is loaded once.

    Args:
        model: A :class:`Model`, a model file, a package of :func:`medseg.export_model`, or a name of
            ``medseg models``.
        device: Device of the network: ``auto``, ``cpu``, ``gpu``, ``cuda``, ``cuda:1`` or ``mps``, see
            :func:`medseg.system.devices.resolved`.
        engine: Engine of the network: ``auto`` or a key of :data:`medseg.inference.backends.REGISTRY`.
        any_modality: Skip the checks that the scan has the model's modality, and that CT is in HU.

    Raises:
        UsageError: no such model, device or engine, or the engine cannot run the network.
        ResourceError: the engine is not installed (``missing-extra``).
        ModelRefused: the model file is damaged or does not fit.

    Example:
        >>> segment = medseg.Segmenter("model.safetensors")
        >>> segment(medseg.read("chest.nii.gz")).grid
        Grid(98 x 76 x 67 voxels, 4 x 4 x 5 mm, LPS)
    """

    def __init__(
        self,
        model: Model | str | Path,
        *,
        device: str = "auto",
        engine: str = "auto",
        any_modality: bool = False,
    ) -> None:
        self._source = read_model(model) if isinstance(model, str | Path) else model
        self.recipe = self._source.recipe
        cpu_only = engine not in ("auto", "torch") or isinstance(self._source, ModelPackage)
        self.device = checked(resolved(device, cpu_only=cpu_only))
        self.any_modality = any_modality
        # Engines copy the weights, so the digest is theirs even if the model is changed later.
        self._digest = self._source.digest
        self._two_stage: TwoStage | None = None
        self._slices: Segmenter | None = None
        self._runtime: PipelineRuntime | None = None
        self._ensemble: EnsembleRuntime | None = None
        if isinstance(self.recipe.pipeline, EnsemblePipeline):
            self._engines = [each for each, *_ in self._stages(engine)]  # one network each
            self._ensemble = EnsembleRuntime(self.recipe, self._engines, self.device)
        elif self.recipe.pipeline is not None:
            stages = self._stages(engine)
            self._engines, self._runtime = stages[0], pipeline_runtime(self.recipe, stages, self.device)
        elif self.recipe.context is None:
            shape, free = window_shape(self.recipe), self.recipe.predict.whole_planes
            self._engines = load(engine, self._networks(), shape, self.device, free=free)
        else:
            self._two_stage = TwoStage(self.recipe, self._networks(), device=self.device, engine=engine)
            self._engines = self._two_stage.fine
            package = self._source if isinstance(self._source, ModelPackage) else None
            included = None if package is None else package.included(SLICES)
            slices = SLICES if included is None else included.path
            self._slices = Segmenter(slices, device=device, engine=engine)
            if package is not None:
                package.check_use(SLICES, self._slices.digest)
            every = f"{self._digest} {self._slices.digest} {RULES}"
            self._digest = hashlib.sha256(every.encode()).hexdigest()
        if self.assembly.postprocess.divide:
            # Divides lungs later, and takes long to import: here the scan is being read in another thread.
            import scipy.ndimage
            import scipy.sparse.csgraph  # noqa: F401

    def _stages(self, engine: str) -> list[list[Engine]]:
        """For each network of a pipeline, the engine of each fold."""
        networks = self._networks()
        return [
            load(engine, [replace(fold, stage=stage) for fold in networks], shape, self.device, free=free)
            for stage, shape, free in graph_forms(self.recipe)
        ]

    @cached_property
    def model(self) -> Model:
        """The model, with its weights as torch tensors."""
        from medseg.inference.model import Model

        if isinstance(self._source, ModelPackage):
            raise UsageError(
                "a package holds exported networks, not weights for torch",
                where=self._source.path,
                remedy="use the engine openvino or onnx, or the model file",
                reason="engine",
            )
        return Model.of_file(self._source) if isinstance(self._source, ModelFile) else self._source

    def _networks(self) -> list[FoldNetwork]:
        """The network of each fold; torch builds it only if there is no exported graph of it."""
        built: list[nn.Module] = []

        def network(fold: int) -> Callable[[], nn.Module]:
            def build() -> nn.Module:
                built.extend(() if built else self.model.networks())
                return built[fold]

            return build

        digests = self._source.fold_digests()
        package = self._source.graph if isinstance(self._source, ModelPackage) else None
        return [
            FoldNetwork(self.recipe, each, network(fold), packaged=package)
            for fold, each in enumerate(digests)
        ]

    @property
    def name(self) -> str:
        """Name of the recipe."""
        return self.recipe.name

    @property
    def labels(self) -> tuple[Label, ...]:
        """Labels of the masks."""
        return self.assembly.painted

    @property
    def ignore_value(self) -> int | None:
        """The integer that means "unknown" in reference masks; None if there is none."""
        return self.recipe.ignore_value

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the scans of a case, in order."""
        return self.recipe.channels

    @property
    def assembly(self) -> Recipe:
        """The recipe by which probabilities become a mask.

        That of the slice network for a model with a section ``context``, otherwise the model's own.
        """
        return self.recipe if self._slices is None else self._slices.recipe

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of the model file whose weights are used.

        For a model with a section ``context``, that of the digests of both model files that are used.
        """
        return self._digest

    @property
    def engine(self) -> str:
        """The engine that runs the network, with its version."""
        return self._engines[0].name

    def __call__(self, scan: Volume | Sequence[Volume]) -> Mask:
        """The mask of one scan, on exactly its grid.

        Args:
            scan: A volume, or one volume per channel, all on one grid.

        Raises:
            InputRefused: the channels are not the recipe's; the scan's modality is not the
                model's (``modality``); some voxels are NaN or infinite (``not-finite``); or the
                recipe is for CT and the voxels are not in HU (``not-hu``). ``any_modality`` skips
                the checks of modality and HU.
        """
        return self.prepare(scan).predict().mask

    def prepare(self, scan: Volume | Sequence[Volume], roi: str | Sequence[str] = ()) -> PreparedScan:
        """The scan, checked and prepared for the network; errors as in :meth:`__call__`.

        Args:
            scan: See :meth:`__call__`.
            roi: Names of the labels that will be used, or text with commas between them; all if empty. A
                model with a section ``pipeline`` does not restore others, so their voxels may be missing from
                the mask, and refuses names that it does not have (``no-such-label``). Others ignore this.

        The prepared scan keeps no reference to ``scan`` unless the recipe splits lungs: then the voxels are
        needed again to find the sides.
        """
        volumes = (scan,) if isinstance(scan, Volume) else tuple(scan)
        for volume in volumes:
            found, wanted = volume.source.modality, self.recipe.modality
            if found not in (*_UNKNOWN_MODALITY, wanted) and not self.any_modality:
                raise InputRefused(
                    f"the scan is {'a picture' if found == 'picture' else found}, the model is for {wanted}",
                    where=volume.source.path,
                    remedy="choose a model for this modality, or pass --any-modality",
                    reason="modality",
                )
        check_finite(volumes)
        with collect_notices(pass_on=True) as notices:
            if self.recipe.modality == "CT" and not self.any_modality:
                _check_hu(volumes, self.recipe)
            volumes = check_channels(self.recipe, volumes)
            if self._runtime is not None:
                return PreparedPipeline(self._runtime, volumes, notices, roi)
            return _PreparedScan(self, volumes, notices)

    def planes(self, prepared: Prepared) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
        """Probabilities on the prepared grid, from the mean logits of the folds, as soon as they are final.

        Yields:
            The number of the first plane along the third axis, and float32 (L, X, Y, planes).

        Raises:
            UsageError: the recipe has a section ``context`` (``context``) or ``pipeline`` (``pipeline``).
        """
        if self.recipe.pipeline is not None:
            raise UsageError(
                "a model whose recipe has a section pipeline has no probabilities on medseg's prepared grid",
                where="pipeline",
                remedy="use prepare(scan).predict()",
                reason="pipeline",
            )
        if self._two_stage is not None:
            raise UsageError(
                "a model whose recipe has a section context needs more than one prepared grid",
                where="context",
                remedy="use prepare(scan).predict(probabilities=True)",
                reason="context",
            )
        return probability_planes(self.recipe, self._engines, prepared.image, self.device)

    def prepared_parts(self, volumes: Sequence[Volume]) -> tuple[Prepared, ...]:
        """The scan as each of its networks needs it: several of them with a context, or in an ensemble."""
        if self._ensemble is not None:
            return self._ensemble.prepare(volumes)
        own = prepare(self.recipe, volumes)
        return (own, prepare(self.assembly, volumes)) if self.recipe.context else (own,)

    def found(self, parts: Sequence[Prepared], target: Target, *, on_device: bool = False) -> Found:
        """The probabilities from which the mask is made.

        Args:
            parts: The result of :meth:`prepared_parts`.
            target: The scan.
            on_device: Leave them on the network's device, as tensors, where that is possible.
        """
        if self._ensemble is not None:
            grid = target.grid.oriented("RAS")
            return Found(self._ensemble.planes(parts, grid), grid)
        if self._two_stage is not None:
            return self.lungs(parts[0], parts[1], target.source.path)
        if on_device and self.device != "cpu":
            return Found(self.device_planes(parts[0], self.device), parts[0].grid)
        return Found(self.planes(parts[0]), parts[0].grid)

    def device_planes(self, prepared: Prepared, device: str) -> Planes:
        """The same as :meth:`planes` in tensors on a device that the engines run on."""
        from torch import device as torch_device

        found = device_probability_planes(self.recipe, self._engines, prepared.image, torch_device(device))
        return cast(Planes, found)

    def lungs(self, prepared: Prepared, slices: Prepared, path: str | Path | None = None) -> Found:
        """Both lungs, by a model whose recipe has a section ``context`` and the slice network.

        Args:
            prepared: The scan, prepared for the model's recipe.
            slices: The scan, prepared for `assembly`.
            path: The scan's path for notices.
        """
        if self._two_stage is None or self._slices is None:
            raise ValueError("the recipe has no section context")
        found_by_slices = partial(self._slices.probabilities, slices)
        return self._two_stage(prepared, found_by_slices, slices.grid, path)

    def probabilities(self, prepared: Prepared) -> npt.NDArray[np.float32]:
        """All of :meth:`planes`: float32 (L, X, Y, Z) on the prepared grid."""
        return np.concatenate([values for _, values in self.planes(prepared)], -1)

    def mask(self, probabilities: npt.NDArray[np.float32], prepared: Prepared, scan: Volume) -> Mask:
        """Mask from probabilities (L, X, Y, Z) on the prepared grid, see :func:`build_mask`."""
        recipe = self.recipe
        return build_mask([(0, probabilities)], prepared.grid, Target.of(scan, recipe), recipe)


class _PreparedScan:
    """A prepared scan with its segmenter.

    :meth:`predict` releases the prepared data to make room for the mask, and the scan as well unless it is
    referenced elsewhere or the recipe still needs it.
    """

    def __init__(self, segmenter: Segmenter, volumes: Sequence[Volume], notices: list[Notice]) -> None:
        self._segmenter, self._recipe = segmenter, segmenter.assembly
        self._target = Target.of(volumes[0], self._recipe)
        self._parts: tuple[Prepared, ...] | None = segmenter.prepared_parts(volumes)
        self._notices = notices  # not copied: the caller may still add to it

    def predict(self, *, probabilities: bool = False) -> Prediction:
        """See :meth:`medseg.inference.prediction.PreparedScan.predict`."""
        maps: dict[str, npt.NDArray[np.float32]] = {}
        entropy = Entropy([label.name for label in self._recipe.labels])
        with collect_notices(pass_on=True) as notices:
            found = self._planes(on_device=not probabilities)
            planes = entropy.watch(found.planes)
            if not probabilities:
                mask = build_mask(planes, found.grid, self._target, self._recipe)
            else:
                kept = list(planes)
                mask = build_mask(kept, found.grid, self._target, self._recipe)
                maps = self._restored(kept, found.grid)
            odd = (*found.check_sides(mask), *lobe_findings(mask))
            send(each.at(self._target.source.path) for each in odd)
        return Prediction(mask, entropy.bits(), maps, (*self._notices, *notices))

    def _restored(self, planes: Planes, prepared: Grid) -> dict[str, npt.NDArray[np.float32]]:
        names = [label.name for label in self._recipe.labels]
        maps = restored(planes, prepared, self._target.grid, labels=len(names))
        return dict(zip(names, maps, strict=True))

    def _planes(self, *, on_device: bool) -> Found:
        parts, self._parts = self._parts, None
        if parts is None:
            raise UsageError(
                "this prepared scan was already segmented", remedy="prepare the scan again", reason="used-up"
            )
        return self._segmenter.found(parts, self._target, on_device=on_device)


def _check_hu(volumes: Sequence[Volume], recipe: Recipe) -> None:
    """Refuses CT that is not in HU; sends a notice if that is uncertain."""
    for volume in volumes:
        for finding in check_hu_units(volume, recipe):
            if finding.severity == "error":
                problem, remedy = finding.problem, finding.remedy
                if has_label_values(volume.array):
                    problem = f"this is a mask, not a scan: whole values from 0 to {int(volume.array.max())}"
                    remedy = "give the scan that the mask belongs to"
                raise InputRefused(
                    problem,
                    where=volume.source.path,
                    remedy=f"{remedy}; or pass --any-modality",
                    reason="not-hu",
                )
            notify(finding.code, finding.problem, path=volume.source.path, remedy=finding.remedy)
