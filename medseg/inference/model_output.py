"""The check of a model file before it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from medseg.errors import UsageError
from medseg.io.overwrite_guard import OverwriteGuard
from medseg.system.atomic_write import check_folder


def check_model_output(output: Path, inputs: Iterable[str | Path], *, is_own: Callable[[Path], bool]) -> None:
    """Refuses, before any work, a model file that cannot or must not be written.

    Args:
        output: The model file to write.
        inputs: Files that the command reads.
        is_own: Whether a file that is there may be replaced, because the same command wrote it.

    Raises:
        UsageError: the name does not end in .safetensors (``format``), the folder is missing
            (``no-folder``), or the file is an input or of another origin (``overwrites-input``,
            ``foreign-file``).
        ResourceError: there is no permission to write in the folder (``disk``).
    """
    if output.suffix != ".safetensors":
        raise UsageError(
            "the name of a model file must end in .safetensors",
            where=output,
            remedy="choose a name such as model.safetensors",
            reason="format",
        )
    check_folder(output)
    OverwriteGuard(inputs).check(output, is_own=is_own)
