"""A machine's power: whether it is on, whether it may be started, and the faults put on it."""

from __future__ import annotations

import threading
from typing import NoReturn

from nxc_testing.backends.base import Boot, ForwardsPorts, Freezes, Links, Node, Reboots
from nxc_testing.composition.model import Instance, ShellMode
from nxc_testing.connection import Connection
from nxc_testing.console import Console
from nxc_testing.errors import DeploymentError, MachineDied, Unsupported, WaitTimeout, tail
from nxc_testing.events import ConsoleOutput, Events, FaultChanged, MachineEnded, MachineStarted
from nxc_testing.logs import Log, waiting
from nxc_testing.waiting import DEFAULT_TIMEOUT, Deadline, Duration, poll, seconds

STOP_TIMEOUT = 120.0
"""Seconds for a machine to shut down, and for a reboot that was announced to begin."""

RETURN_TIMEOUT = 60.0
"""Seconds for a machine that reboots by itself to be on again."""


class Power:
    """What a machine has before any command: its node, its shell, its console, and its power.

    A machine starts at its first command. One whose end was asked for starts again at the next
    command, as upstream's does; one that died by itself is not started behind the test's back.

    :param node: the backend's side of it.
    :param instance: what it is in the composition.
    :param backend: the backend's name.
    :param mode: how its commands run.
    """

    def __init__(
        self, node: Node, instance: Instance, backend: str, *, mode: ShellMode, events: Events
    ):
        self.node, self.instance, self.backend = node, instance, backend
        self.name = instance.name
        self.logger = Log(events)
        self._events = events
        self._console = Console(self._on_console)
        self.connection = Connection(node, events, mode, self._console)
        self._power = threading.RLock()
        self._off = threading.Event()
        self._watched: Boot | None = None
        self._end_was_asked = True
        self._allow_reboot = self._rebooting = False
        self._boot_left: Boot | None = None
        node.watch_console(self._console.feed)

    def start(self, allow_reboot: bool = False) -> None:
        """Power on; returns before the machine has booted. Does nothing if it is on.

        :param allow_reboot: whether a reboot from inside starts it again, or ends it.
        :raise DeploymentError: if it does not start.
        """
        with self._power:
            if self.is_up():
                return
            if isinstance(self.node, Reboots):
                self.node.set_allow_reboot(allow_reboot)
            elif allow_reboot:
                self._refuse("start(allow_reboot=True)", "it cannot restart a machine")
            self._allow_reboot = allow_reboot
            self._console.new_boot()
            self.node.start()
            self._end_was_asked = False
            self._watch_boot()

    def connect(self) -> None:
        """Start if need be, and wait until commands can run."""
        self._ensure_started()
        self.connection.connect()

    def shutdown(self, timeout: Duration | None = STOP_TIMEOUT) -> None:
        """Shut down in order, and wait for it. The next command starts the machine again.

        :raise WaitTimeout: if it is not off in time; with the end of its console.
        """
        if not self.is_up():
            return
        deadline = Deadline(DEFAULT_TIMEOUT if seconds(timeout) is None else timeout)
        self._end_was_asked = True
        with waiting(self._events, self.name, "its shutdown", deadline):
            if not self.node.stop(deadline.remaining() or 0.0):
                raise self._still_on(deadline)

    def crash(self) -> None:
        """Cut the power. The next command starts the machine again."""
        if not self.is_up():
            return
        self._end_was_asked = True
        self._fault("crash", True)
        self.node.kill()

    def reboot(self, timeout: Duration | None = STOP_TIMEOUT) -> None:
        """Restart in order; the next command waits until the machine has booted again.

        :param timeout: for the machine to be off and on again.
        :raise DeploymentError: if it is not on again in time.
        """
        if not isinstance(self.node, Reboots):
            self._refuse("reboot", "it cannot restart a machine")
        self._ensure_started()
        limit = seconds(timeout)
        with self._power:
            self._rebooting = True
            try:
                self.node.reboot(DEFAULT_TIMEOUT if limit is None else limit)
            finally:
                self._rebooting = False
            self._watch_boot()

    def wait_for_shutdown(self, timeout: Duration | None = None) -> None:
        """Wait until the machine is off, by whatever it was told.

        :raise WaitTimeout: if it is not off in time; with the end of its console.
        """
        boot, deadline = self.node.boot, Deadline(timeout)
        if boot is not None:
            with waiting(self._events, self.name, "its shutdown", deadline):
                if not boot.ended.wait(deadline.total):
                    raise self._still_on(deadline)
        self._end_was_asked = True

    def is_up(self) -> bool:
        """Whether the machine is on."""
        return self.node.boot is not None and not self.node.boot.ended.is_set()

    @property
    def booted(self) -> bool:
        """Upstream's name for `is_up()`."""
        return self.is_up()

    @property
    def connected(self) -> bool:
        """Whether there is a shell for the next command; it opens one where there is none.

        Scripts set it to false once they have told the machine to reboot: where that brings it
        back (`start(allow_reboot=True)`), the next command waits for the new boot. What runs
        goes on: it may be what reboots the machine.
        """
        return self.connection.open and self._boot_left is None

    @connected.setter
    def connected(self, value: bool) -> None:
        self._boot_left = self.node.boot if self.connection.open and not value else None

    def release(self) -> None:
        """Cut the power and let the shell go."""
        self.connection.close()
        if self.is_up():
            self._end_was_asked = True
            self.node.kill()

    # --- faults

    def block(self) -> None:
        """Cut the machine's network links; connections survive a short cut."""
        self._set_link("block", up=False)

    def unblock(self) -> None:
        """Undo `block()`."""
        self._set_link("unblock", up=True)

    def freeze(self) -> None:
        """Stop every process of the machine, as a machine that hangs."""
        self._freezer("freeze").freeze()
        self._fault("freeze", True)

    def thaw(self) -> None:
        """Undo `freeze()`."""
        self._freezer("thaw").thaw()
        self._fault("freeze", False)

    def forward_port(self, host_port: int = 8080, guest_port: int = 80) -> None:
        """Let a port of the host's loopback lead to a port of the machine."""
        if not isinstance(self.node, ForwardsPorts):
            self._refuse("forward_port", "there is no way in from the host")
        self.node.forward_port(host_port, guest_port)

    def _set_link(self, method: str, *, up: bool) -> None:
        if not isinstance(self.node, Links):
            self._refuse(method, "its links cannot be cut")
        self.node.set_link(up)
        self._fault("block", not up)

    def _freezer(self, method: str) -> Freezes:
        if not isinstance(self.node, Freezes):
            self._refuse(method, "it cannot stop a machine from outside")
        return self.node

    def _fault(self, fault: str, active: bool) -> None:
        self._events.emit(FaultChanged(machine=self.name, fault=fault, active=active))

    # --- own

    def _refuse(self, method: str, why: str) -> NoReturn:
        raise Unsupported(self.name, method, self.backend, why)

    def _still_on(self, deadline: Deadline) -> WaitTimeout:
        seen = tail("console", self._console.text).lstrip("\n") or "  its console is empty"
        return WaitTimeout(self.name, "its shutdown", deadline.elapsed(), seen)

    def _ensure_started(self) -> None:
        """See that the machine is on, starting it where its end was asked for.

        :raise MachineDied: if it died by itself.
        """
        self._await_announced_reboot()
        with self._power:
            if self.is_up():
                return
            if self._end_was_asked:
                self.start()
                return
        self._await_return()

    def _await_announced_reboot(self) -> None:
        left, self._boot_left = self._boot_left, None
        if left is None or left is not self.node.boot or not self._allow_reboot:
            return
        if left.ended.wait(STOP_TIMEOUT):
            return
        self.logger.warning(f"{self.name}: no reboot began in {STOP_TIMEOUT:.0f} s")

    def _await_return(self) -> None:
        if not poll(lambda _: self.is_up() or not self._returns(), Deadline(RETURN_TIMEOUT)):
            raise DeploymentError(
                f"{self.name}: it rebooted, and was not on again after {RETURN_TIMEOUT:.0f} s"
                + tail("console", self._console.text)
            )
        if not self.is_up():
            raise self._died()
        self._watch_boot()

    def _died(self, doing: str = "") -> MachineDied:
        reason = self.node.boot.reason if self.node.boot else "it was never started"
        return MachineDied(self.name, reason, doing=doing, console=self._console.text)

    def _returns(self) -> bool:
        """Whether the machine is off only for a moment."""
        if self._rebooting:
            return True
        return isinstance(self.node, Reboots) and self.node.reboots_by_itself

    def _watch_boot(self) -> None:
        """Tell of the present boot, and of its end when it comes."""
        with self._power:
            boot = self.node.boot
            if boot is None or boot is self._watched:
                return
            self._watched = boot
            self._off.clear()
        self._events.emit(MachineStarted(machine=self.name, boot=boot.number))
        boot.on_end(lambda: self._on_end(boot))

    def _on_end(self, boot: Boot) -> None:
        self._off.set()
        self._events.emit(MachineEnded(machine=self.name, boot=boot.number, reason=boot.reason))
        if self._returns():
            self._console.new_boot()
            if not self._rebooting:
                watcher = threading.Thread(target=self._watch_return, args=(boot,), daemon=True)
                watcher.start()
        self._console.wake()

    def _watch_return(self, left: Boot) -> None:
        if poll(lambda _: self.node.boot is not left and self.is_up(), Deadline(RETURN_TIMEOUT)):
            self._watch_boot()

    @property
    def console_history(self) -> str:
        """What the console printed, over all boots."""
        return self._console.history

    def _on_console(self, text: str) -> None:
        self._events.emit(ConsoleOutput(machine=self.name, text=text))
