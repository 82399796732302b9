"""One background thread with an asyncio loop that serves every channel of the process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from functools import cache
from typing import TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class IoLoop:
    """The loop and its thread; the thread ends with the process."""

    def __init__(self) -> None:
        self.asyncio = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="nxc-io", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.asyncio)
        self.asyncio.run_forever()

    def call(self, function: Callable[[*Ts], object], *arguments: *Ts) -> None:
        """Run a function on the loop's thread, soon; from any thread."""
        if threading.current_thread() is self._thread:
            function(*arguments)
        else:
            self.asyncio.call_soon_threadsafe(function, *arguments)

    def run(self, work: Coroutine[object, object, T], timeout: float) -> T:
        """Do something on the loop and wait for it; from any other thread.

        :param timeout: seconds; then it is cancelled.
        :raise TimeoutError: if it takes longer.
        """
        future = asyncio.run_coroutine_threadsafe(work, self.asyncio)
        try:
            return future.result(timeout)
        finally:
            future.cancel()


_first_use = threading.Lock()


def io_loop() -> IoLoop:
    """The process' only loop, started at its first use."""
    with _first_use:
        return _only_loop()


@cache
def _only_loop() -> IoLoop:
    return IoLoop()
