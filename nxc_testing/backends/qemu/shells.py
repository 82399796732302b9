"""Root shells at a machine's virtual serial ports, for whoever asks for one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from nxc_testing.backends.base import Boot, Channel
from nxc_testing.backends.qemu.helpers import connect
from nxc_testing.errors import ConnectionLost
from nxc_testing.waiting import Deadline

LAST_WORDS = 0.3
LOOK_EVERY = 1.0
NEWS_TIMEOUT = 3.0


class Shells:
    """The shells of one boot of a machine: the host's ends of its ports.

    :param name: the machine's, for messages.
    :param ports: where QEMU listens for each.
    """

    def __init__(self, name: str, ports: Sequence[Path]):
        self.name, self._ports = name, list(ports)
        self._used: dict[Path, socket.socket] = {}
        self._lock = threading.Lock()

    def open(self, boot: Boot, deadline: Deadline) -> Channel:
        """A root shell, as soon as the machine gives one.

        :raise ConnectionLost: if all are in use, or the machine gives none in time.
        """
        while True:
            try:
                connection, path = self._free_port()
            except OSError as error:
                # Its QEMU has ended, and the news is on its way.
                boot.ended.wait(NEWS_TIMEOUT)
                raise ConnectionLost(f"{self.name}: a shell: {error}") from error
            try:
                greeted = self._await_greeting(connection, boot, deadline)
            except BaseException:
                self._give_back(path, connection)
                raise
            if greeted:
                connection.setblocking(False)
                number = connection.fileno()
                return Channel(number, number, partial(self._give_back, path, connection))
            self._give_back(path, connection)

    def _free_port(self) -> tuple[socket.socket, Path]:
        with self._lock:
            # In turn: whoever had one last may not have let it go yet, at the other end.
            for path in self._ports:
                if path in self._used:
                    continue
                self._ports.remove(path)
                self._ports.append(path)
                self._used[path] = connect(path)
                return self._used[path], path
        raise ConnectionLost(f"{self.name}: all its {len(self._ports)} shells are in use")

    def _await_greeting(self, connection: socket.socket, boot: Boot, deadline: Deadline) -> bool:
        """Wait until there is a shell at the other end.

        :return: false if it was hung up instead: the shell before it has ended just now.
        :raise ConnectionLost: if none comes.
        """
        while not boot.ended.is_set():
            if deadline.expired:
                raise ConnectionLost(f"{self.name}: no shell after {deadline.elapsed():.0f} s")
            connection.settimeout(LOOK_EVERY)
            try:
                greeted = bool(connection.recv(1))
            except TimeoutError:
                continue
            except OSError:
                greeted = False
            # Or its QEMU has ended, and the news is on its way.
            if greeted or not boot.ended.wait(LAST_WORDS):
                return greeted
        raise ConnectionLost(f"{self.name}: it ended")

    def _give_back(self, path: Path, connection: socket.socket) -> None:
        with self._lock:
            if self._used.get(path) is not connection:
                return
            del self._used[path]
        _hang_up(connection)

    def closed_inside(self, port: str) -> None:
        """A shell in the machine has ended; we would go on waiting for it.

        :param port: the name of its port.
        """
        with self._lock:
            used = [connection for path, connection in self._used.items() if path.name == port]
        for connection in used:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Hang up all of them."""
        with self._lock:
            used, self._used = self._used, {}
        for connection in used.values():
            _hang_up(connection)


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
