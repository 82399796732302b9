"""One boot of a machine: its QEMU, what that tells, its console, and shells in it."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from nxc_testing.backends.base import Boot, Channel
from nxc_testing.backends.qemu.command import SHELLS, Descriptors, Hardware, command, port_name
from nxc_testing.backends.qemu.helpers import connect, listen, spawn
from nxc_testing.backends.qemu.monitor import Monitor
from nxc_testing.backends.qemu.verdict import Verdict
from nxc_testing.errors import ConnectionLost, DeploymentError
from nxc_testing.shell.loop import io_loop
from nxc_testing.waiting import Deadline

logger = logging.getLogger("nxc_testing.qemu")

READ_SIZE = 1 << 16
LAST_WORDS = 0.3
"""Seconds that an ended machine's console may take to be read to its end."""

LOOK_EVERY = 1.0
"""Seconds between looks at whether QEMU was stopped."""

LAST_BREATH = 3.0
"""Seconds that a machine may take to end after it said that it does."""

NEWS_TIMEOUT = 3.0

GREETING_TIMEOUT = 300.0
"""Seconds from a shell's request until the machine has booted so far as to give one."""

STOPPED = "its QEMU was stopped by a signal, like SIGSTOP"


class Qemu:
    """A QEMU process with its machine; the machine waits for `run`.

    :param directory: the machine's own.
    :param links: connections to the switch, in the order of its networks; QEMU's from now on.
    :param sink: gets what the console prints, on the background loop's thread.
    :raise DeploymentError: if it does not start.
    :ivar monitor: its QMP.
    :ivar cut: whether we have cut its power.
    """

    def __init__(
        self,
        hardware: Hardware,
        directory: Path,
        environment: Mapping[str, str],
        links: Sequence[socket.socket],
        sink: Callable[[bytes], None],
    ):
        self.name, self._directory, self._sink = hardware.name, directory, sink
        self.cut = False
        self._log = directory / "qemu.log"
        self._log.unlink(missing_ok=True)
        self.verdict = Verdict()
        self._loop = io_loop()
        self._drained = threading.Event()
        self._ports = [directory / port_name(number) for number in range(1, SHELLS + 2)]
        self._used: dict[Path, socket.socket] = {}
        self._lock = threading.Lock()
        with ExitStack() as stack:
            paths = (directory / "monitor", directory / "console", *self._ports)
            listeners = [stack.enter_context(listen(path)) for path in paths]
            for link in links:
                stack.enter_context(link)
            numbers = [listener.fileno() for listener in listeners]
            descriptors = Descriptors(
                numbers[0], numbers[1], numbers[2:], [link.fileno() for link in links]
            )
            line = command(hardware, descriptors, directory / "console.log")
            self._process = spawn(line, environment, self._log, descriptors.all)
        self._console, self._orders = connect(paths[1]), connect(paths[2])
        try:
            self._attach(paths[0])
        except DeploymentError as error:
            self._process.kill()
            status = self._process.wait()
            self._orders.close()
            self._loop.call(self._close_console)
            said = self._log.read_text(errors="replace").strip()
            raise DeploymentError(f"QEMU ended with status {status}: {said or error}") from error

    def _attach(self, monitor: Path) -> None:
        # Before the machine runs, so that nothing of its console is lost.
        self._console.setblocking(False)
        self._loop.call(self._loop.asyncio.add_reader, self._console.fileno(), self._on_console)
        self.monitor = Monitor(self.name, connect(monitor), self._on_event)

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def run(self) -> None:
        """Let the machine go, or go on."""
        self.monitor.execute("cont")

    # The end

    def wait(self) -> str:
        """Wait for the end of the machine, and see that it is one.

        :return: how it ended, in words.
        """
        stopped = 0
        while True:
            try:
                status = self._process.wait(LOOK_EVERY)
                break
            except subprocess.TimeoutExpired:
                # Once may be by chance: a debugger that attaches, for one.
                stopped = stopped + 1 if self._is_stopped() else 0
                if stopped > 1:
                    self._process.kill()
        self._drained.wait(LAST_WORDS)
        if self.cut:
            return "its power was cut"
        if self.verdict.reason or stopped > 1:
            return self.verdict.reason or STOPPED
        return self._told() or self._left(status)

    def _is_stopped(self) -> bool:
        try:
            return psutil.Process(self._process.pid).status() == psutil.STATUS_STOPPED
        except psutil.Error:
            return False

    @property
    def wants_reboot(self) -> bool:
        """Whether the machine ended because it asked to be started again."""
        return not self.cut and not self.verdict.reason and self._shutdown() == "guest-reset"

    def _shutdown(self) -> str:
        """What QEMU said of the end, in its own terms (`ShutdownCause` of its QAPI)."""
        for event in reversed(self.monitor.events):
            if event["event"] == "SHUTDOWN":
                return str(event["data"]["reason"])
        return ""

    def _told(self) -> str:
        reason = self._shutdown()
        return {
            "": "",
            "guest-shutdown": "it powered off",
            "guest-reset": "it rebooted",
            "host-qmp-quit": "its QEMU was told to quit",
            "host-signal": "its QEMU was ended by a signal",
        }.get(reason, f"its QEMU ended: {reason}")

    def _left(self, status: int) -> str:
        if status < 0:
            name = signal.strsignal(-status) or "unknown signal"
            return f"its QEMU was ended by signal {-status} ({name})"
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return f"its QEMU ended with status {status}" + (f": {lines[-1]}" if lines else "")

    def kill(self) -> None:
        """Cut the power."""
        self.cut = True
        self._process.kill()

    def close(self) -> None:
        """Let go of a machine that has ended."""
        self.monitor.close()
        self._orders.close()
        self._loop.call(self._close_console)
        with self._lock:
            used, self._used = self._used, {}
        for connection in used.values():
            _hang_up(connection)

    # Console

    def _on_console(self) -> None:
        try:
            data = self._console.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close_console()
            return
        if self.verdict.feed(data):
            # It ends by itself, with a trace of where it was; or it has no power to.
            self._loop.asyncio.call_later(LAST_BREATH, self._process.kill)
        try:
            self._sink(data)
        except Exception:
            logger.exception("a console's reader failed")

    def _close_console(self) -> None:
        if not self._drained.is_set():
            self._loop.asyncio.remove_reader(self._console.fileno())
            self._console.close()
            self._drained.set()

    def type(self, data: bytes) -> None:
        """Type into the serial console.

        :raise ConnectionLost: if it takes nothing.
        """
        with self._lock:
            sent = 0
            while sent < len(data):
                _, ready, _ = select.select([], [self._console], [], GREETING_TIMEOUT)
                if not ready:
                    raise ConnectionLost(f"{self.name}: its console takes no input")
                sent += self._console.send(data[sent:])

    # Orders and shells

    def _on_event(self, event: Mapping[str, Any]) -> None:
        """A shell in the machine that ends closes its port; we would go on waiting for it."""
        if event["event"] == "VSERPORT_CHANGE" and not event["data"]["open"]:
            name = str(event["data"]["id"]).removesuffix("-end")
            with self._lock:
                connection = self._used.get(self._directory / name)
            if connection:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def order(self, word: str) -> None:
        """Ask the system for something, `poweroff` or `reboot`; it may be busy."""
        with suppress(OSError):
            self._orders.send(f"{word}\n".encode(), socket.MSG_DONTWAIT)

    def open_shell(self, boot: Boot) -> Channel:
        """A root shell, as soon as the machine gives one.

        :raise ConnectionLost: if all are in use, or the machine gives none in time.
        """
        deadline = Deadline(GREETING_TIMEOUT)
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
            for path in self._ports[1:]:
                if path in self._used:
                    continue
                self._ports.remove(path)
                self._ports.append(path)
                self._used[path] = connect(path)
                return self._used[path], path
        raise ConnectionLost(f"{self.name}: all its {SHELLS} shells are in use")

    def _await_greeting(self, connection: socket.socket, boot: Boot, deadline: Deadline) -> bool:
        """Wait until there is a shell at the other end.

        :return: false if it was hung up instead: the shell before it has ended just now.
        :raise ConnectionLost: if none comes.
        """
        while not boot.ended.is_set():
            if deadline.expired:
                raise ConnectionLost(f"{self.name}: no shell after {GREETING_TIMEOUT:.0f} s")
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


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def environment(mark: Mapping[str, str]) -> dict[str, str]:
    """What a process of a deployment finds in its environment.

    :param mark: by which it is found again.
    """
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", **mark}
