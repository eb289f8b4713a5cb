"""A package of a model: its recipe and its exported networks in a folder, which run without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError, ModelRefused, UsageError
from medseg.inference.model_file import ModelFile
from medseg.recipe import Recipe
from medseg.system.safe_parsing import json_data

FORMAT = "medseg-package-1"
PIPELINE = "pipeline.json"
_LARGEST_PIPELINE = 2**24
_LARGEST_FILE = 2**31
_OTHER_FILE = b"location"
"""Key of the path in ONNX's ``external_data``, relative to wherever the process runs; exports have none."""


@dataclass(frozen=True)
class PackagedFile:
    """A file of a package.

    Attributes:
        path: The file.
        sha256: Hexadecimal SHA-256 of the file.
    """

    path: Path
    sha256: str

    def content(self) -> bytes:
        """The bytes of the file.

        Raises:
            ModelRefused: it is missing, or is not the file that was exported (``model-damaged``).
        """
        content = b""
        if self.path.is_file() and self.path.stat().st_size <= _LARGEST_FILE:
            content = self.path.read_bytes()
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise ModelRefused(
                "missing, or not the file that was exported: its SHA-256 differs",
                where=self.path,
                remedy="copy the whole package again, or repeat `medseg export`",
                reason="model-damaged",
            )
        return content


@dataclass(frozen=True, eq=False)
class ModelPackage:
    """A model package: the folder that :func:`medseg.export_model` writes.

    Attributes:
        recipe: Everything needed to prepare scans and read the networks' output.
        folds: Number of folds.
        provenance: That of the model.
        digest: Hexadecimal SHA-256 of ``pipeline.json``, which holds that of each network.
        path: The folder.
        uses: Names and digests of other models that this one needs.
        includes: SHA-256 of the ``pipeline.json`` of each model that is in a subfolder, by its name.
        others: Names and SHA-256 of the files that medseg itself does not use, such as OpenVINO's.
        self_test: Names and SHA-256 of the scan in the package and its mask.

    Example:
        >>> package = medseg.export_model("model.safetensors", "exported")
        >>> package.recipe.name, package.folds
        ('tiny_3d', 1)
    """

    recipe: Recipe
    folds: int
    provenance: Mapping[str, Any]
    digest: str
    path: Path
    uses: Mapping[str, str]
    includes: Mapping[str, str]
    others: Mapping[str, str] = field(repr=False)
    self_test: Mapping[str, str] = field(repr=False)
    _weights: tuple[str, ...] = field(repr=False)
    _graphs: Mapping[str, PackagedFile] = field(repr=False)

    def fold_digests(self) -> tuple[str, ...]:
        """The digests of each fold's weights, as in the model file that was exported."""
        return self._weights

    def graph(self, key: str) -> bytes:
        """The network of a :func:`medseg.inference.backends.graph_cache.graph_key`, as an ONNX file.

        Raises:
            ModelRefused: the package has no such network, or its file is damaged or refers to another one
                (``model-damaged``).
        """
        if key not in self._graphs:
            raise ModelRefused(
                "the recipe was changed: none of the networks belongs to it",
                where=self.path / PIPELINE,
                remedy="repeat `medseg export` with a model that has this recipe",
                reason="model-damaged",
            )
        return _network(self._graphs[key])

    def included(self, name: str) -> ModelPackage | None:
        """The package of another model that is used as well; None if this one was exported without it.

        Raises:
            ModelRefused: it is missing, or is not the one that was exported (``model-damaged``).
        """
        if name not in self.includes:
            return None
        PackagedFile(self.path / name / PIPELINE, self.includes[name]).content()
        return ModelPackage.read(self.path / name)

    def check_use(self, name: str, digest: str) -> None:
        """Refuses a shipped model that is used as well, if it is not the one at export.

        Raises:
            ModelRefused: it has another digest (``model-format``).
        """
        if name not in self.includes and self.uses.get(name) != digest:
            raise ModelRefused(
                f"exported with another {name} than the one in this version of medseg",
                where=self.path,
                remedy="install the medseg version that made it",
                reason="model-format",
            )

    def check_files(self) -> None:
        """Checks the SHA-256 of every file, also in the packages of the models that are used as well.

        Raises:
            ModelRefused: one is missing, or is not the file that was exported (``model-damaged``).
        """
        for name, sha256 in {**self.self_test, **self.others}.items():
            PackagedFile(self.path / name, sha256).content()
        for graph in self._graphs.values():
            _network(graph)
        for name in self.includes:
            included = self.included(name)
            if included is not None:
                included.check_files()

    def file_names(self) -> set[str]:
        """The names of all files that were exported, with ``/`` for those in subfolders."""
        names = {PIPELINE, *self.self_test, *self.others, *(f.path.name for f in self._graphs.values())}
        for model in self.includes:
            included = self.included(model)
            names |= {f"{model}/{name}" for name in (included.file_names() if included else ())}
        return names

    @classmethod
    def read(cls, folder: str | Path) -> ModelPackage:
        """The package in a folder. Its networks are read when they are used.

        Raises:
            ModelRefused: ``pipeline.json`` is not valid (``model-damaged``), or of another version
                (``model-format``, ``model-recipe``).
        """
        folder = Path(folder)
        path = folder / PIPELINE
        try:
            with path.open("rb") as stream:
                text = stream.read(_LARGEST_PIPELINE)
            content: Any = json_data(text.decode())
            if content["format"] != FORMAT:
                raise ModelRefused(
                    f"package format {content['format']!r:.40}, this version reads {FORMAT}",
                    where=path,
                    remedy="install the medseg version that made it",
                    reason="model-format",
                )
            weights = tuple(str(each) for each in content["weights"])
            graphs = {
                str(each["key"]): PackagedFile(folder / _plain_name(each["file"]), str(each["sha256"]))
                for each in content["graphs"]
            }
            provenance = dict(content["model"]["provenance"])
            uses = {str(name): str(sha256) for name, sha256 in content["uses"].items()}
            # Packages written before these entries existed have neither.
            includes = _digests(content.get("includes", {}))
            others = _digests(content.get("openvino", {}))
            tests = _digests(content["self_test"])
            written = content["recipe"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelRefused(
                f"not the {PIPELINE} of a package: {type(error).__name__}",
                where=path,
                remedy="copy the whole package again, or repeat `medseg export`",
                reason="model-damaged",
            ) from None
        try:
            recipe = Recipe.checked(written)
        except UsageError as error:
            raise ModelRefused(
                f"its recipe is not valid: {error.problem}",
                where=path,
                remedy="install the medseg version that made it",
                reason="model-recipe",
            ) from None
        digest = hashlib.sha256(text).hexdigest()
        return cls(
            recipe=recipe,
            folds=len(weights),
            provenance=provenance,
            digest=digest,
            path=folder,
            uses=uses,
            includes=includes,
            others=others,
            self_test=tests,
            _weights=weights,
            _graphs=graphs,
        )


def is_package(path: str | Path) -> bool:
    """Whether a path is a folder with the ``pipeline.json`` of a package."""
    try:
        return (Path(path) / PIPELINE).is_file()
    except OSError:
        return False


def read_model(source: str | Path) -> ModelFile | ModelPackage:
    """The package in a folder, or else the model file of a path or name.

    Raises:
        UsageError, ModelRefused: as :meth:`ModelPackage.read` and :meth:`ModelFile.read`.
    """
    return ModelPackage.read(source) if is_package(source) else ModelFile.read(source)


def is_own_package(folder: Path) -> bool:
    """Whether an existing folder may be replaced: it is empty, or a package without other files."""
    try:
        names = {each.relative_to(folder).as_posix() for each in folder.rglob("*") if not each.is_dir()}
        return not any(folder.iterdir()) or names <= ModelPackage.read(folder).file_names()
    except (OSError, MedsegError):
        return False


def _network(file: PackagedFile) -> bytes:
    """The bytes of a network, which must hold its weights itself."""
    content = file.content()
    if _OTHER_FILE in content:
        raise ModelRefused(
            "the network takes its weights from another file, which nothing vouches for",
            where=file.path,
            remedy="use a package of `medseg export` from somebody you trust",
            reason="model-damaged",
        )
    return content


def _digests(files: Mapping[str, Any]) -> dict[str, str]:
    return {_plain_name(name): str(sha256) for name, sha256 in files.items()}


def _plain_name(name: object) -> str:
    if not isinstance(name, str) or Path(name).name != name or name in ("", ".", ".."):
        raise ValueError(f"file {name!r}")
    return name
