"""A channel on the background loop: bytes out from any thread, bytes in by callback."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from nxc_testing.backends.base import Channel
from nxc_testing.shell.loop import IoLoop, io_loop

READ_SIZE = 1 << 16
BULK_SIZE = 1 << 18


class Wire:
    """Reads and writes a channel without ever blocking the loop.

    :param channel: owned from now on.
    :param on_data: called on the loop's thread with what came, unwrapped.
    :param on_close: called once on the loop's thread when the far end is gone or it was closed.
    """

    def __init__(
        self,
        channel: Channel,
        on_data: Callable[[bytes], None],
        on_close: Callable[[], None],
        loop: IoLoop | None = None,
    ):
        self._channel, self._on_data, self._on_close = channel, on_data, on_close
        self._loop = loop or io_loop()
        self._lock = threading.Lock()
        self._waiting = bytearray()
        self._size = READ_SIZE
        self.closed = False
        os.set_blocking(channel.reader, False)
        os.set_blocking(channel.writer, False)
        self._loop.call(self._start)

    def _start(self) -> None:
        if not self.closed:
            self._loop.asyncio.add_reader(self._channel.reader, self._readable)

    def _readable(self) -> None:
        try:
            data = os.read(self._channel.reader, self._size)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end()
            return
        # Room for much is dear, and most messages are short.
        self._size = BULK_SIZE if len(data) >= READ_SIZE else READ_SIZE
        decoder = self._channel.decoder
        if unwrapped := decoder.feed(data) if decoder else data:
            self._on_data(unwrapped)

    def write(self, data: bytes) -> None:
        """Send bytes; what cannot go at once goes later, in order. Silent once closed."""
        with self._lock:
            if self.closed:
                return
            if not self._waiting:
                # Straight from the calling thread: one change of threads less per command.
                data = data[self._send(data) :]
            if data:
                first = not self._waiting
                self._waiting += data
                if first:
                    self._loop.call(self._watch_writer)

    def _send(self, data: bytes | bytearray) -> int:
        sent = 0
        view = memoryview(data)
        try:
            while sent < len(view):
                sent += os.write(self._channel.writer, view[sent:])
        except BlockingIOError:
            pass
        except OSError:
            # The reading side meets the end too and tells it.
            sent = len(view)
        finally:
            view.release()
        return sent

    def _watch_writer(self) -> None:
        if not self.closed:
            self._loop.asyncio.add_writer(self._channel.writer, self._writable)

    def _writable(self) -> None:
        with self._lock:
            if self.closed:
                return
            del self._waiting[: self._send(self._waiting)]
            if not self._waiting:
                self._loop.asyncio.remove_writer(self._channel.writer)

    def close(self) -> None:
        """Close the channel; may be called twice, from any thread."""
        self._loop.call(self._end)

    def _end(self) -> None:
        with self._lock:
            if self.closed:
                return
            self.closed = True
        self._loop.asyncio.remove_reader(self._channel.reader)
        self._loop.asyncio.remove_writer(self._channel.writer)
        self._channel.close()
        self._on_close()
