"""Conversion of errors from Python and other libraries to medseg's own."""

from __future__ import annotations

import errno
from pathlib import Path

from medseg.errors import MedsegError, ResourceError, UsageError

_OUT_OF_MEMORY = (
    "out of memory",  # torch on a GPU (CUDA, MPS), and the CUDA driver itself
    "can't allocate memory",  # torch's DefaultCPUAllocator on Linux
    "not enough memory",  # the same on Windows
    "failed to allocate memory",  # ONNX Runtime
    "bad_alloc",  # C++ exceptions that a library passes on as text
    "status_alloc_failed",  # cuBLAS and cuDNN
)


_DISTRIBUTIONS = {"PIL": "Pillow", "gdcm": "python-gdcm", "yaml": "PyYAML", "skimage": "scikit-image"}
"""What to install for a package whose name is another one."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the computer or a GPU is out of memory."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if not isinstance(error, RuntimeError) and not type(error).__module__.startswith("onnxruntime"):
        return False
    text = str(error).lower()
    return any(words in text for words in _OUT_OF_MEMORY)


def as_medseg_error(error: BaseException) -> MedsegError:
    """The error itself if it is medseg's, else one with a reason of its kind.

    That is ``memory``, ``missing-extra`` for a package that is not installed, ``disk``, or ``unexpected``.
    """
    if isinstance(error, MedsegError):
        return error
    package = str(getattr(error, "name", "")).partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and package not in ("", "None", "medseg"):
        return ResourceError(
            f"this needs the package {package}, which is not installed",
            remedy=f"pip install {_DISTRIBUTIONS.get(package, package)}",
            reason="missing-extra",
        )
    if is_out_of_memory(error):
        return ResourceError(
            "out of memory", remedy="close other programs, or use a larger machine", reason="memory"
        )
    text = " ".join(str(error).split())
    if isinstance(error, OSError):
        return ResourceError(text, remedy="check free space and permissions", reason="disk")
    return MedsegError(
        f"{type(error).__name__}: {text[:300]}",
        remedy="this is a bug in medseg: please report it",
        reason="unexpected",
    )


def damaged_table(error: Exception, where: Path, *, remedy: str) -> UsageError:
    """The refusal of tables that medseg wrote, but that cannot be read any more (``table``)."""
    return UsageError(
        f"cannot read its tables: {type(error).__name__}: {str(error)[:200]}",
        where=where,
        remedy=remedy,
        reason="table",
    )
