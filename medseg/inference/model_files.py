"""Model files: where they are found by name, and which kinds are never opened."""

from __future__ import annotations

import contextlib
import os
from importlib import resources
from pathlib import Path

from medseg.errors import ModelRefused, UsageError
from medseg.system import user_folders

# A pickle of protocol 2 to 5; the length that safetensors starts with may look the same.
_PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_PICKLED_SUFFIXES = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin", ".zip", ".tar", ".joblib")


def find(source: str | Path) -> Path:
    """The file of a model, given by its path, or by the name of a shipped one or one in :func:`own_folder`.

    Raises:
        UsageError: no such model (``model-not-found``).
    """
    path = Path(source)
    if str(source) in shipped():
        return Path(str(resources.files("medseg").joinpath("models", f"{source}.safetensors")))
    own = own_folder() / f"{source}.safetensors"
    if not os.path.exists(path) and path.name == str(source) and os.path.exists(own):  # noqa: PTH110
        return own
    if not os.path.exists(path):  # noqa: PTH110 - Path.exists of 3.11 raises for a name that is too long
        if not shipped():
            raise UsageError(
                "no such model: medseg-runtime comes without models",
                where=source,
                remedy="give a package: the folder of medseg export MODEL -o PACKAGE, run with medseg itself",
                reason="model-not-found",
            )
        if str(source) == "threshold":
            raise UsageError(
                "it has no network and no weights, so there is no model file of it",
                where=source,
                remedy=f"give a model with a network: {', '.join(names())}",
                reason="model-not-found",
            )
        raise UsageError(
            "no such model",
            where=source,
            remedy=f"give a .safetensors file, or a name of `medseg models`: {', '.join(names())}, threshold",
            reason="model-not-found",
        )
    return path


def shipped() -> tuple[str, ...]:
    """Names of the models that come with medseg; none with medseg-runtime."""
    folder = resources.files("medseg").joinpath("models")
    suffix = ".safetensors"
    if not folder.is_dir():
        return ()
    return tuple(sorted(f.name.removesuffix(suffix) for f in folder.iterdir() if f.name.endswith(suffix)))


def own_folder() -> Path:
    """The folder for a user's own models: ``models`` in :func:`medseg.system.user_folders.cache`.

    Nothing is ever downloaded into it.
    """
    return user_folders.cache() / "models"


def names() -> tuple[str, ...]:
    """Names of the models in the package and in :func:`own_folder`; a shipped one takes precedence."""
    folder = own_folder()
    own = {f.stem for f in folder.glob("*.safetensors")} if folder.is_dir() else set()
    return tuple(sorted(own | set(shipped())))


def refuse_pickles(path: Path) -> None:
    """Refuses a file that could run a program when loaded, judged by its first bytes and its name."""
    first = b""
    if path.is_file():
        # TensorFile reports a file that cannot be read.
        with contextlib.suppress(OSError), path.open("rb") as file:
            first = file.read(9)
    named = path.name.lower().endswith(_PICKLED_SUFFIXES) and path.is_file()
    pickle = first.startswith(_PICKLE_STARTS) and first[8:] != b"{"
    if named or pickle or first.startswith(b"PK\x03\x04"):
        raise ModelRefused(
            "an unsafe kind of model file: a checkpoint, pickle or archive can run a program when it "
            "is loaded, so its weights were not loaded",
            where=path,
            remedy="give a .safetensors model; to convert the weights of a PyTorch checkpoint: "
            "medseg import-weights FILE --recipe RECIPE -o model.safetensors",
            reason="model-pickle",
        )
