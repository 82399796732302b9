"""QEMU's monitor: QMP commands and events, for threads."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from qemu.qmp import ExecuteError, QMPClient, QMPError

from nxc_testing.errors import DeploymentError
from nxc_testing.shell.loop import io_loop
from nxc_testing.waiting import Deadline

TIMEOUT = 30.0
EVENTS_KEPT = 1000

Event = dict[str, Any]

# It tells every end of a QEMU as an error; who is concerned is told by the boot's end.
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)


class Monitor:
    """A connection to one QEMU, for its whole life.

    :param name: the machine's, for messages.
    :param connection: a stream to a QMP server that nobody else uses; owned from now on.
    :param told: called with every event, on the background loop's thread.
    :raise DeploymentError: if nobody answers there.
    """

    def __init__(
        self, name: str, connection: socket.socket, told: Callable[[Event], None] = lambda _: None
    ):
        self._name, self._tell = name, told
        self._client = QMPClient(name)
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._told = self._matched = 0
        self._news = threading.Condition()
        self._loop = io_loop()
        connection.setblocking(False)
        try:
            self._loop.run(self._open(connection), TIMEOUT)
        except (QMPError, OSError, TimeoutError) as error:
            connection.close()
            raise DeploymentError(f"{name}: QEMU's monitor: {error}") from error

    async def _open(self, connection: socket.socket) -> None:
        await self._client.connect(connection)
        # Kept: the loop itself holds its tasks only weakly.
        self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        async for event in self._client.events:
            with self._news:
                self._events.append(dict(event))
                self._told += 1
                self._news.notify_all()
            self._tell(dict(event))

    def execute(
        self, command: str, arguments: Mapping[str, object] | None = None, timeout: float = TIMEOUT
    ) -> Any:  # noqa: ANN401 (whatever JSON holds)
        """Run a QMP command.

        :param timeout: seconds to wait for the answer.
        :return: what QEMU returns.
        :raise DeploymentError: if QEMU refuses, is gone, or does not answer.
        """
        try:
            return self._loop.run(self._client.execute(command, dict(arguments or {})), timeout)
        except ExecuteError as error:
            raise DeploymentError(f"{self._name}: QEMU refuses {command}: {error}") from error
        except TimeoutError as error:
            raise DeploymentError(
                f"{self._name}: QEMU did not answer {command} within {timeout:.0f} s"
            ) from error
        except (QMPError, OSError, EOFError) as error:
            raise DeploymentError(f"{self._name}: QEMU is gone: {command}: {error}") from error

    def human(self, line: str) -> str:
        """Run a command of the monitor for humans.

        :return: what it prints, with LF at the ends of lines.
        :raise DeploymentError: if QEMU is gone or does not answer.
        """
        answer = self.execute("human-monitor-command", {"command-line": line})
        return str(answer).replace("\r\n", "\n")

    @property
    def events(self) -> list[Event]:
        """The events that QEMU has told, the oldest first."""
        with self._news:
            return list(self._events)

    def wait_for_event(
        self, accept: Callable[[Event], bool], deadline: Deadline, ended: Callable[[], bool]
    ) -> Event | None:
        """Wait for an event; the search begins behind the last one that was waited for.

        :param accept: whether an event is the one.
        :param ended: true ends the wait; looked at when `wake` is called.
        :return: the event; None at the deadline or at the end.
        """
        with self._news:
            looked = self._matched
            while True:
                last = deadline.expired or ended()
                first = self._told - len(self._events)
                for number, event in enumerate(self._events, first + 1):
                    if number > looked and accept(event):
                        self._matched = number
                        return event
                looked = self._told
                if last:
                    return None
                self._news.wait(deadline.remaining())

    def wake(self) -> None:
        """Let those who wait look at whether there is an end."""
        with self._news:
            self._news.notify_all()

    def close(self) -> None:
        """Let go of it; QEMU goes on. May be called twice."""
        with suppress(TimeoutError, QMPError, OSError):
            self._loop.run(self._close(), TIMEOUT)
        self.wake()

    async def _close(self) -> None:
        # It raises what ended the connection, and it ended with its QEMU.
        with suppress(QMPError, OSError, EOFError):
            await self._client.disconnect()
        self._listening.cancel()
