"""The models of the server, each loaded once, and the masks that they make for clients."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from medseg.errors import UsageError
from medseg.images.grid import LPS_RAS
from medseg.images.label import Label
from medseg.images.volume import Mask, Volume
from medseg.inference.registry import DEFAULT, SegmentationMethod, load_segmenter
from medseg.io import formats, read_channels, write
from medseg.io.read_options import DEFAULT_OPTIONS
from medseg.system.notices import collect_notices

RESULTS = (".nii.gz", ".nrrd")
"""Suffixes of the masks that clients may ask for."""


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready.

    Attributes:
        name: Name that clients use.
        method: The method.
        source: What it was loaded from: a file, or a name of ``medseg models``.
    """

    name: str
    method: SegmentationMethod
    source: str

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of its labels; the mask for a client has 1 for the first one."""
        return tuple(label.name for label in self.method.labels)

    def info(self) -> dict[str, object]:
        """The model as MONAI Label describes one."""
        return {
            "type": "segmentation",
            "labels": list(self.labels),
            "dimension": 3,
            "description": f"medseg model {self.method.name} ({self.method.digest[:12]})",
            "config": {},
        }


@dataclass(frozen=True)
class Segmentation:
    """The mask of a scan for a client.

    Attributes:
        mask: On the scan's grid; 1 for the first label, 2 for the second one, ...
        labels: Names of the labels.
        entropy_bits: Mean entropy of the labels, 0..1; None for a method without probabilities.
        notices: What was unusual about the scan or the mask.
        digest: Hexadecimal SHA-256 of everything that decides the mask.
    """

    mask: Mask
    labels: tuple[str, ...]
    entropy_bits: float | None
    notices: tuple[str, ...]
    digest: str

    def params(self) -> dict[str, object]:
        """What MONAI Label calls the parameters of a result."""
        volumes = {name: round(ml, 4) for name, ml in self.mask.volumes_ml().items()}
        facts: dict[str, object] = {
            "label_names": list(self.labels),
            "volumes_ml": volumes,
            "warnings": list(self.notices),
        }
        if self.entropy_bits is not None:
            facts["entropy_bits"] = round(self.entropy_bits, 4)
        return facts


@dataclass
class LoadedModels:
    """The models by name; more may be added while the server runs."""

    _models: dict[str, LoadedModel] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, model: LoadedModel) -> None:
        """Offers a model under its name, instead of an earlier one of that name."""
        with self._lock:
            self._models = {**self._models, model.name: model}

    def all(self) -> Mapping[str, LoadedModel]:
        """The models by name, in the order in which they were added."""
        return MappingProxyType(self._models)

    def named(self, name: str) -> LoadedModel:
        """The model of a name.

        Raises:
            UsageError: there is none (``model-not-found``).
        """
        found = self._models.get(name)
        if found is None:
            raise UsageError(
                f"this server has no model {name[:80]!r}",
                remedy=f"choose one of {', '.join(self._models)}, or start the server with --model",
                reason="model-not-found",
            )
        return found

    def labels(self) -> list[str]:
        """The labels of all models, each once."""
        return list(dict.fromkeys(name for model in self._models.values() for name in model.labels))


def load_models(sources: Sequence[str], *, device: str = "auto", engine: str = "auto") -> LoadedModels:
    """The models, loaded.

    Args:
        sources: Model files, packages, or names of ``medseg models``; the default model if empty.
        device: Device of the networks.
        engine: Engine of the networks.

    Raises:
        UsageError: two models have the same name (``usage``), or as for :func:`medseg.load_segmenter`.
        ModelRefused: a model file is damaged or does not fit.
    """
    models = LoadedModels()
    for source in sources or (DEFAULT,):
        name = Path(source).name.removesuffix(".safetensors")
        if name in models.all():
            raise UsageError(
                f"two models are called {name!r}", where=source, remedy="rename a file", reason="usage"
            )
        method = load_segmenter(source, device=device, engine=engine)
        models.add(LoadedModel(name, method, str(source)))
    return models


def segmented(model: LoadedModel, scan: Path) -> Segmentation:
    """The mask of the scan at a path, as :func:`medseg.segment` makes it, with the labels numbered.

    Raises:
        InputRefused: the scan cannot be read or trusted, or does not fit the model.
    """
    return segmented_with_scan(model, scan)[0]


def segmented_with_scan(
    model: LoadedModel, scan: Path, phase: Callable[[str], AbstractContextManager[object]] = nullcontext
) -> tuple[Segmentation, Volume]:
    """The same as :func:`segmented`, and the scan's first channel.

    Args:
        model: The model.
        scan: Path of the scan.
        phase: What surrounds ``reading`` and ``segmenting``, for example to show the steps of each.

    Raises:
        InputRefused: the scan cannot be read or trusted, or does not fit the model.
    """
    method = model.method
    with collect_notices() as notices:
        with phase("reading"):
            volumes = read_channels([scan], channels=len(method.channels), choices=DEFAULT_OPTIONS)
        with phase("segmenting"):
            prediction = method.prepare(volumes).predict()
    entropy = list(prediction.entropy.values())
    result = Segmentation(
        numbered(prediction.mask),
        model.labels,
        sum(entropy) / len(entropy) if entropy else None,
        tuple(str(notice.at(None)) for notice in notices),
        method.digest,
    )
    return result, volumes[0]


def numbered(mask: Mask) -> Mask:
    """The mask with 1 where its first label is topmost, 2 for the second one, and so on."""
    table = np.zeros(int(max(label.value for label in mask.labels)) + 1, np.uint16)
    for number, label in enumerate(mask.labels, start=1):
        table[label.value] = number
    labels = tuple(
        Label(name=label.name, values=(number,)) for number, label in enumerate(mask.labels, start=1)
    )
    array: npt.NDArray[np.uint16] = table[mask.array]
    return Mask(array, mask.grid, labels, mask.source)


def result_file(mask: Mask, folder: Path, name: str) -> Path:
    """The mask, written for a client.

    NRRD is written without compression and with 8 bits if the values fit, which is what OHIF reads.

    Args:
        mask: The mask.
        folder: A temporary folder.
        name: Name of the file with a suffix of `RESULTS`, or of a DICOM segmentation.

    Raises:
        UsageError: the scan of a DICOM segmentation is not DICOM (``no-dicom-source``).
    """
    path = folder / name
    if formats.ending(path) != ".nrrd":
        return write(mask, path, flush=False)
    array = mask.array.astype(np.uint8 if mask.array.max(initial=0) < 256 else np.uint16)
    lps = LPS_RAS @ mask.affine
    axes = " ".join(_vector(lps[:3, axis]) for axis in range(3))
    header = (
        f"NRRD0004\ntype: {array.dtype.name}\ndimension: 3\nspace: left-posterior-superior\n"
        f"sizes: {' '.join(map(str, array.shape))}\nspace directions: {axes}\n"
        f"kinds: domain domain domain\nendian: little\nencoding: raw\nspace origin: {_vector(lps[:3, 3])}\n\n"
    )
    path.write_bytes(header.encode() + array.astype(array.dtype.newbyteorder("<")).tobytes(order="F"))
    return path


def _vector(numbers: npt.NDArray[np.float64]) -> str:
    return f"({','.join(repr(float(number)) for number in numbers)})"
