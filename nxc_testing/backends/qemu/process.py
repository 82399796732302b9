"""One boot of a machine: its QEMU, what that tells, its console, and shells in it."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import psutil

from nxc_testing.backends.base import Boot, Channel
from nxc_testing.backends.qemu.backdoor import Backdoor
from nxc_testing.backends.qemu.helpers import connect
from nxc_testing.backends.qemu.launch import Launcher
from nxc_testing.backends.qemu.monitor import Monitor
from nxc_testing.backends.qemu.shells import Shells
from nxc_testing.backends.qemu.verdict import Verdict
from nxc_testing.errors import ConnectionLost, DeploymentError, tail
from nxc_testing.shell.loop import io_loop
from nxc_testing.waiting import Deadline

logger = logging.getLogger("nxc_testing.qemu")

READ_SIZE = 1 << 16
WORDS_KEPT = 1 << 12

LAST_WORDS = 0.3
"""Seconds that an ended machine's console may take to be read to its end."""

LOOK_EVERY = 1.0
"""Seconds between looks at whether QEMU was stopped."""

LAST_BREATH = 3.0
"""Seconds that a machine may take to end after it said that it does."""

INPUT_TIMEOUT = 10.0
"""Seconds until a console that takes no input is given up."""

GREETING_TIMEOUT = 300.0
"""Seconds from a shell's request until the machine has booted so far as to give one."""

STOPPED = "its QEMU was stopped by a signal, like SIGSTOP"

SIGNALS = {"poweroff": signal.SIGRTMIN + 4, "reboot": signal.SIGRTMIN + 5}
"""What systemd(1) takes for orders."""

KEYS = [{"type": "qcode", "data": key} for key in ("ctrl", "alt", "delete")]
BUTTONS: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "poweroff": ("system_powerdown", {}),
    "reboot": ("send-key", {"keys": KEYS}),
}
"""How QEMU brings a person's orders to a machine."""


class Qemu:
    """A QEMU process with its machine; the machine waits for `run`.

    :param launcher: the way to it.
    :param sink: gets what the console prints, on the background loop's thread.
    :raise DeploymentError: if it does not start.
    :ivar monitor: its QMP.
    :ivar pid: its number.
    :ivar cut: whether we have cut its power.
    """

    def __init__(self, name: str, launcher: Launcher, sink: Callable[[bytes], None]):
        self.name, self._sink, self._what = name, sink, launcher.what
        self.cut = False
        self.verdict = Verdict()
        self._loop = io_loop()
        self._drained = threading.Event()
        self._typing = threading.Lock()
        self._words = bytearray()
        self._qemu: psutil.Process | None = None
        self._orders: socket.socket | None = None
        self._held: socket.socket | None = None
        self._backdoor: Backdoor | None = None
        started = launcher.start()
        self._process, self._console, self._log = started.process, started.console, started.log
        try:
            # Before the machine runs, so that nothing of its console is lost.
            os.set_blocking(self._console.reader, False)
            self._loop.call(self._loop.asyncio.add_reader, self._console.reader, self._on_console)
            reached = launcher.reach(started)
            self._held, self._backdoor = reached.held, reached.backdoor
            self._qemu, self.pid = psutil.Process(reached.pid), reached.pid
            self._shells = Shells(name, reached.ports[1:])
            self.monitor = Monitor(name, reached.monitor, self._on_event)
            if reached.ports:
                self._orders = connect(reached.ports[0])
        except (DeploymentError, OSError, psutil.Error) as error:
            raise DeploymentError(self._abandon(error)) from error

    def _abandon(self, error: Exception) -> str:
        """Let go of a start that failed.

        :return: how it failed, in words.
        """
        try:
            status: int | None = self._process.wait(LAST_WORDS)
        except subprocess.TimeoutExpired:
            status = None
        self._kill()
        self._process.wait()
        self._drained.wait(LAST_WORDS)
        self._hang_up()
        how = str(error) if status is None else f"{self._what} ended with status {status}"
        if self._log:
            return f"{how}: {self._log.read_text(errors='replace').strip() or error}"
        return how + tail("console", self._words.decode(errors="replace"))

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
                    self._kill()
        # Nothing of the machine outlives what was started for it.
        self._kill()
        self._drained.wait(LAST_WORDS)
        if self.cut:
            return "its power was cut"
        if self.verdict.reason or stopped > 1:
            return self.verdict.reason or STOPPED
        return self._told() or self._left(status)

    def _is_stopped(self) -> bool:
        try:
            return bool(self._qemu and self._qemu.status() == psutil.STATUS_STOPPED)
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
        said = self._log.read_bytes() if self._log else bytes(self._words)
        lines = said.decode(errors="replace").strip().splitlines()
        return f"its {self._what} ended with status {status}" + (f": {lines[-1]}" if lines else "")

    def kill(self) -> None:
        """Cut the power."""
        self.cut = True
        self._kill()

    def _kill(self) -> None:
        # A start script may have others beside it, or be another process than its QEMU.
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        if self._qemu:
            with suppress(psutil.Error):
                self._qemu.kill()

    def close(self) -> None:
        """Let go of a machine that has ended."""
        self.monitor.close()
        self._shells.close()
        self._hang_up()

    def _hang_up(self) -> None:
        for end in (self._orders, self._held, self._backdoor):
            if end:
                end.close()
        self._loop.call(self._stop_reading)
        self._drained.wait(LAST_WORDS)
        with self._typing:
            self._console.close()

    # Console

    def _on_console(self) -> None:
        try:
            data = os.read(self._console.reader, READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._stop_reading()
            return
        self._words += data
        del self._words[:-WORDS_KEPT]
        if self.verdict.feed(data):
            # It ends by itself, with a trace of where it was; or it has no power to.
            self._loop.asyncio.call_later(LAST_BREATH, self._kill)
        try:
            self._sink(data)
        except Exception:
            logger.exception("a console's reader failed")

    def _stop_reading(self) -> None:
        if not self._drained.is_set():
            self._loop.asyncio.remove_reader(self._console.reader)
            self._drained.set()

    def type(self, data: bytes) -> None:
        """Type into the serial console.

        :raise ConnectionLost: if it takes nothing.
        """
        with self._typing:
            left = memoryview(data)
            while left:
                if self._drained.is_set():
                    raise ConnectionLost(f"{self.name}: its console is closed")
                writer = self._console.writer
                if not select.select([], [writer], [], INPUT_TIMEOUT)[1]:
                    raise ConnectionLost(f"{self.name}: its console takes no input")
                try:
                    left = left[os.write(writer, left) :]
                except BlockingIOError:
                    continue
                except OSError as error:
                    raise ConnectionLost(f"{self.name}: its console: {error}") from error

    # Orders and shells

    def _on_event(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "VSERPORT_CHANGE" and not event["data"]["open"]:
            self._shells.closed_inside(str(event["data"]["id"]).removesuffix("-end"))

    def order(self, word: str) -> None:
        """Ask the system for something, `poweroff` or `reboot`; it may be busy."""
        if self._orders and (self._backdoor is None or self._backdoor.opened_ports):
            with suppress(OSError):
                self._orders.send(f"{word}\n".encode(), socket.MSG_DONTWAIT)
        elif not (self._backdoor and self._backdoor.signal_init(SIGNALS[word])):
            # Whoever it is that runs there.
            with suppress(DeploymentError):
                command, arguments = BUTTONS[word]
                self.monitor.execute(command, arguments)

    def open_shell(self, boot: Boot) -> Channel:
        """A root shell, as soon as the machine gives one.

        :raise ConnectionLost: if all are in use, or the machine gives none in time.
        """
        deadline = Deadline(GREETING_TIMEOUT)
        if self._backdoor and not self._backdoor.open_ports(boot, deadline):
            return self._backdoor.open_shell(boot, deadline)
        return self._shells.open(boot, deadline)


def environment(mark: Mapping[str, str]) -> dict[str, str]:
    """What a process of a deployment finds in its environment.

    :param mark: by which it is found again.
    """
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", **mark}
