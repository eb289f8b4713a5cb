"""Every error medseg raises on purpose, with the exit code the command line gives it.

MedsegError
├── UsageError         2  the request itself is wrong: options, recipe, manifest
├── InputRefused       3  a scan or mask cannot be read, or cannot be trusted
├── ModelRefused       4  a model file is damaged, hostile, or does not fit
└── ResourceError      5  not enough memory or disk, or an optional part is not installed
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from traceback import FrameSummary, extract_tb
from types import TracebackType


class MedsegError(Exception):
    """An error that states the problem, the value seen, the place, and a remedy.

    Args:
        problem: What is wrong, with the value seen, in one sentence.
        where: The file, case or field concerned.
        remedy: What the user can do about it.
        reason: A short machine-readable code, such as ``not-found``. Codes stay stable
            between releases; messages may be reworded.

    ``str(error)`` has at most three lines: place, problem, remedy. They may quote a file's
    content, so control characters are escaped before they reach a terminal. ``error.details`` are
    further lines, such as a table to choose from, which the command line shows below.

    Example:
        >>> try:
        ...     medseg.read("missing.nii.gz")
        ... except medseg.MedsegError as error:
        ...     print(error.reason, error.exit_code)
        not-found 3
    """

    exit_code = 1
    details: tuple[str, ...] = ()

    def __init__(
        self,
        problem: str,
        *,
        where: str | Path | None = None,
        remedy: str | None = None,
        reason: str = "error",
    ) -> None:
        self.problem = printable(problem)
        self.where = None if where is None else str(where)
        self.remedy = remedy and printable(remedy)
        self.reason = reason
        super().__init__(self.problem)

    def __str__(self) -> str:
        parts = (
            self.where and f"{printable(self.where)}:",
            self.problem,
            self.remedy and f"→ {self.remedy}",
        )
        return "\n".join(" ".join(part.split()) for part in parts if part)

    def _render_traceback_(self) -> list[str]:
        """The lines that IPython and Jupyter show: the message and the line that called, no code of medseg.

        See "Custom exception tracebacks" in IPython's manual. Plain Python shows the whole traceback, and so
        does ``traceback.print_exception(sys.last_value)`` in the next cell.
        """
        lines = [f"{type(self).__name__}: {self}", *map(printable, self.details)]
        if isinstance(self.__cause__, Exception):
            cause = self.__cause__
            lines.append(f"caused by {type(cause).__name__}: {printable(first_line(cause))}")
        caller = _caller(self.__traceback__)
        if caller is not None:
            lines.append(f"in line {caller.lineno} of {_place(caller)}: {caller.line}")
        return lines


def _caller(trace: TracebackType | None) -> FrameSummary | None:
    """The place that called medseg; None if all or none of the code is medseg's."""
    own = Path(__file__).parent
    before = None
    for frame in extract_tb(trace):
        if Path(frame.filename).is_relative_to(own):
            return before
        before = frame
    return None


def _place(frame: FrameSummary) -> str:
    """``<cell>``, or the name of the file."""
    # ipykernel names cells /tmp/ipykernel_1/2.py, IPython in a terminal <ipython-input-1-...>.
    path = Path(frame.filename)
    is_cell = path.parent.name.startswith("ipykernel_") or path.name.startswith("<ipython-input-")
    return "<cell>" if is_cell else printable(path.name)


def printable(text: str) -> str:
    """The text with terminal control characters escaped."""
    return "".join(c if c.isprintable() or c in "\t\n\r" else ascii(c)[1:-1] for c in text)


class UsageError(MedsegError):
    """The request itself is wrong: an option, a recipe or a manifest.

    Example:
        >>> try:
        ...     medseg.Recipe.read("missing")
        ... except medseg.UsageError as error:
        ...     print(error.reason)
        recipe-not-found
    """

    exit_code = 2


class InputRefused(MedsegError):
    """A scan or mask cannot be read, or reading it would mean guessing.

    Example:
        >>> try:
        ...     medseg.read("cases.csv")
        ... except medseg.InputRefused as error:
        ...     print(error.reason)
        format
    """

    exit_code = 3


class ModelRefused(MedsegError):
    """A model file is damaged, hostile, of another version, or does not fit the input.

    Example:
        >>> try:
        ...     medseg.load_model("tiny.yaml")
        ... except medseg.ModelRefused as error:
        ...     print(error.reason)
        model-damaged
    """

    exit_code = 4


class ResourceError(MedsegError):
    """Memory, disk or an optional dependency is missing.

    Example:
        >>> issubclass(medseg.ResourceError, medseg.MedsegError), medseg.ResourceError.exit_code
        (True, 5)
    """

    exit_code = 5


class InputWarning(UserWarning):
    """A scan was read, but something about it was repaired or is unusual; the text says what.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("error", medseg.InputWarning)  # refuse scans with warnings
        ...     scan = medseg.read("chest.nii.gz")
    """


def listed(names: Iterable[str], most: int = 8) -> str:
    """Names for a message, at most so many of them: ``a, b and 3 more``."""
    shown = list(names)
    more = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more


def first_line(error: Exception) -> str:
    """The essential line of a library's error message, at most 200 characters."""
    # An OSError's number means nothing to users, and our message names the file already.
    text = (error.strerror or "") if isinstance(error, OSError) and error.strerror else str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # ITK starts with "Exception thrown in ..." and a source position; the reason comes last.
    line = lines[-1] if lines and lines[0].startswith("Exception thrown in") else (lines or [""])[0]
    return (line or type(error).__name__)[:200]
