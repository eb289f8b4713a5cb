"""Quiet ends of a command that is stopped from outside: Ctrl-C, SIGTERM, or a closed output pipe.

Each ends with one line on stderr and the exit code that shells use: 128 plus the number of the signal.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from medseg.cli.output import print_error
from medseg.errors import MedsegError, UsageError
from medseg.system.signals import handled_signals

STOPPED = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}

CLOSED_PIPE = 141  # 128 + SIGPIPE


class _Signals:
    """Turns the first Ctrl-C or SIGTERM into `KeyboardInterrupt`; the second one ends the process.

    Attributes:
        received: Number of the first signal; None before it.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._process = os.getpid()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Handles signals within the block; does nothing in threads, which receive no signals."""
        with handled_signals(self._stop, *STOPPED) as handled:
            if not handled:
                yield
                return
            hook, sys.unraisablehook = sys.unraisablehook, self._ignored
            try:
                yield
            finally:
                sys.unraisablehook = hook

    def _stop(self, number: int, frame: FrameType | None) -> None:
        for each in STOPPED:
            signal.signal(each, signal.SIG_DFL)
        if os.getpid() != self._process:  # a forked child
            os.kill(os.getpid(), number)
        self.received = number
        raise KeyboardInterrupt

    def _ignored(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Ends the process if Python has dropped the `KeyboardInterrupt`, as it does within destructors."""
        if self.received is None:
            sys.__unraisablehook__(unraisable)
        elif unraisable.exc_type is KeyboardInterrupt:
            _say(self.received)
            os._exit(128 + self.received)


@contextmanager
def quiet_exit() -> Iterator[None]:
    """Ends the process quietly if a signal or a closed pipe stops the block.

    Raises:
        SystemExit: 130 after Ctrl-C, 143 after SIGTERM, 141 if the reader of standard output closed the pipe.
    """
    signals = _Signals()
    with signals.watched():
        try:
            try:
                yield
            finally:
                sys.stdout.flush()  # here, not when Python exits: a closed pipe shows now
        except BaseException as error:
            if signals.received is not None or isinstance(error, KeyboardInterrupt):
                number = signals.received or signal.SIGINT
                _say(number)
                code = 128 + number
                # With `python -m`, Python would end by SIGINT instead of with this code if KeyboardInterrupt
                # passed through exec("..."), as in the making of dataclasses. Another exec resets that.
                exec("")
            elif _is_closed_pipe(error):
                _discard_output()
                code = CLOSED_PIPE
            else:
                raise
            raise SystemExit(code) from None


def _say(number: int) -> None:
    problem = STOPPED[signal.Signals(number)]
    with suppress(OSError, ValueError):
        print_error(UsageError(problem, reason="interrupted"), 128 + number)


def _is_closed_pipe(error: BaseException) -> bool:
    """Whether an error comes from writing to an output that nobody reads.

    Typer and rich turn this error into SystemExit, and rich also replaces the closed pipe.
    """
    each: BaseException | None = error
    while each is not None and not isinstance(each, MedsegError):
        if isinstance(each, BrokenPipeError):
            return isinstance(error, SystemExit) or bool(_closed_outputs())
        each = each.__cause__ or each.__context__
    return False


def _closed_outputs() -> list[int]:
    """Standard output and error, as file descriptors, as far as they are pipes without a reader."""
    if not hasattr(select, "poll"):  # Windows: only asked after an error, which is of standard output
        return [1]
    poll = select.poll()
    for output in (1, 2):
        poll.register(output, select.POLLOUT)
    return [output for output, events in poll.poll(0) if events & (select.POLLERR | select.POLLHUP)]


def _discard_output() -> None:
    """Sends further output to nowhere, so that Python can flush its buffers when it exits."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for output in _closed_outputs():
        os.dup2(nowhere, output)
    print("stopped: the reader of the output closed the pipe", file=sys.stderr)
