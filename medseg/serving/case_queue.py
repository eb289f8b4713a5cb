"""One case at a time on the device, and a short queue of clients that wait for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from medseg.errors import ResourceError

_Result = TypeVar("_Result")


class CaseQueue:
    """Runs calls in a thread, one after the other, for at most ``waiting`` clients besides the first.

    Args:
        waiting: Most calls that wait.
    """

    def __init__(self, waiting: int) -> None:
        self._most = waiting + 1
        self._inside = 0
        self._turn = asyncio.Lock()

    def check(self) -> None:
        """Refuses further calls if the queue is full.

        Raises:
            ResourceError: it is (``server-busy``).
        """
        if self._inside >= self._most:
            raise ResourceError(
                f"{self._most} cases are waiting or being segmented already",
                remedy="ask again in a few seconds",
                reason="server-busy",
            )

    async def run(
        self, call: Callable[[], _Result], *, is_gone: Callable[[], Awaitable[bool]] | None = None
    ) -> _Result:
        """The result of a call, when it is its turn.

        Args:
            call: Runs in a thread of its own.
            is_gone: Whether the client has left; then the call is not begun.

        Raises:
            ResourceError: the queue is full (``server-busy``).
            ConnectionAbortedError: the client has left.
        """
        self.check()
        self._inside += 1
        try:
            async with self._turn:
                if is_gone is not None and await is_gone():
                    raise ConnectionAbortedError
                return await in_thread(call)
        finally:
            self._inside -= 1


async def in_thread(call: Callable[[], _Result]) -> _Result:
    """The result of a call in a thread that does not keep the process alive."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_Result] = loop.create_future()

    def settle(how: Callable[[Any], None], value: object) -> None:
        if not done.done():
            how(value)

    def work() -> None:
        try:
            how, value = done.set_result, call()
        except BaseException as error:
            _report(loop, settle, done.set_exception, error)
        else:
            _report(loop, settle, how, value)

    threading.Thread(target=work, name="medseg-case", daemon=True).start()
    return await done


def _report(loop: asyncio.AbstractEventLoop, settle: Callable[..., None], how: object, value: object) -> None:
    try:
        loop.call_soon_threadsafe(settle, how, value)
    except RuntimeError:  # the server has been stopped meanwhile
        return
