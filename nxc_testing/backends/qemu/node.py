"""One machine: a QEMU at each boot, its power, its shells, its console and its links."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from nxc_testing.backends.base import Boot, Channel
from nxc_testing.backends.host.power import PoweredNode, Request
from nxc_testing.backends.qemu.helpers import LOOPBACK
from nxc_testing.backends.qemu.launch import Launcher
from nxc_testing.backends.qemu.monitor import Monitor
from nxc_testing.backends.qemu.process import Qemu
from nxc_testing.errors import ConnectionLost, DeploymentError, MachineDied, Unsupported

ASK_AGAIN = 10.0
"""Seconds after which an order that had no effect is given again."""

PUBLISH_ATTEMPTS = 10

ORDERS = {Request.POWEROFF: "poweroff", Request.REBOOT: "reboot"}


class QemuNode(PoweredNode):
    """A machine that is a QEMU.

    :param name: the host's name.
    :param addresses: by network; the primary one first.
    :param directory: the machine's own.
    :param launcher: the way to its QEMU.
    :param shared: what it shares with the host and all others; None if nothing.
    """

    def __init__(
        self,
        name: str,
        addresses: Mapping[str, str],
        directory: Path,
        launcher: Launcher,
        shared: Path | None,
    ):
        super().__init__(name, addresses)
        self.directory, self._launcher, self._shared = directory, launcher, shared
        self._qemu: Qemu | None = None
        self._published: dict[int, int] = {}
        self._link_cut = self._frozen = False
        self._asked: tuple[Request, float] | None = None

    def __repr__(self) -> str:
        return f"<QemuNode {self.name!r} {self.directory}>"

    @property
    def _machine(self) -> Qemu:
        """The QEMU of the present boot.

        :raise MachineDied: if it is off.
        """
        self._require_boot()
        assert self._qemu is not None
        return self._qemu

    def _switch_on(self, boot: Boot) -> None:
        self._frozen, self._asked = False, None
        try:
            qemu = Qemu(self.name, self._launcher, self._feed)
        except DeploymentError as error:
            raise DeploymentError(f"{self.name} does not start: {error}") from error
        self._qemu = qemu
        name = f"nxc-qemu-{self.name}"
        threading.Thread(target=self._watch, args=(boot, qemu), name=name, daemon=True).start()
        try:
            if self._link_cut:
                self._switch_links(qemu.monitor)
            self._launcher.ready(qemu.monitor)
            qemu.run()
        except BaseException:
            qemu.kill()
            raise

    def _feed(self, data: bytes) -> None:
        self._sink(data)

    def _watch(self, boot: Boot, qemu: Qemu) -> None:
        reason = qemu.wait()
        self._ended(boot, reason, wants_reboot=qemu.wants_reboot)
        qemu.close()

    def _request(self, request: Request) -> None:
        qemu = self._qemu
        if qemu is None or self._running is None:
            return
        if request is Request.KILL:
            qemu.kill()
            return
        now = time.monotonic()
        if self._asked is None or self._asked[0] is not request or now > self._asked[1]:
            self._asked = request, now + ASK_AGAIN
            qemu.order(ORDERS[request])

    def open_channel(self) -> Channel:
        """A new root shell, beside those already open, once the machine has booted so far.

        :raise MachineDied: if the machine is off, or ends before.
        :raise ConnectionLost: if it gives none; a frozen machine does not.
        """
        with self._power:  # A start that is under way comes first.
            boot, qemu = self._require_boot(), self._machine
        if self._frozen:
            raise ConnectionLost(f"{self.name}: a frozen machine gives no shells")
        try:
            return qemu.open_shell(boot)
        except ConnectionLost as error:
            if boot.ended.is_set():
                raise MachineDied(self.name, boot.reason) from error
            raise

    # Faults

    def freeze(self) -> None:
        """Stop the machine's processors; connections and shells stay open."""
        self._machine.monitor.execute("stop")
        self._frozen = True

    def thaw(self) -> None:
        """Continue."""
        self._machine.monitor.execute("cont")
        self._frozen = False

    def set_link(self, up: bool) -> None:
        """Cut all its networks, or restore them; shells do not go by them, and live on.

        It can be called while the machine is off, and holds from one boot to the next.

        :raise DeploymentError: if it cannot be done.
        """
        with self._power:
            self._link_cut = not up
            if self._running and self._qemu:
                self._switch_links(self._qemu.monitor)

    def _switch_links(self, monitor: Monitor) -> None:
        for name in self._launcher.links(monitor):
            monitor.execute("set_link", {"name": name, "up": not self._link_cut})

    def forward_port(self, host_port: int, guest_port: int) -> None:
        """Let 127.0.0.1:host_port on the host lead to guest_port in the machine.

        :raise DeploymentError: if the host's port is taken.
        :raise Unsupported: if the machine has no such network.
        """
        self._forward(host_port, guest_port)

    def _forward(self, host_port: int, guest_port: int) -> None:
        with self._power:
            monitor = self._qemu.monitor if self._running and self._qemu else None
            self._launcher.forward(monitor, host_port, guest_port)

    def publish(self, guest_port: int, host_port: int) -> None:
        """Forward a port that the role publishes.

        :param host_port: 0 for a free one.
        :raise DeploymentError: if the host's port is taken.
        """
        for attempt in range(PUBLISH_ATTEMPTS):
            chosen = host_port or _free_port()
            try:
                self._forward(chosen, guest_port)
            except DeploymentError:
                # Somebody else may have taken it just now.
                if host_port or attempt == PUBLISH_ATTEMPTS - 1:
                    raise
            else:
                self._published[guest_port] = chosen
                return

    def published_ports(self) -> Mapping[int, int]:
        """The host's ports on 127.0.0.1 by the machine's, of those that its role publishes."""
        return self._published

    @property
    def shared_dir(self) -> Path:
        """The directory that all machines share.

        :raise Unsupported: if this host has no virtiofsd.
        """
        if self._shared is None:
            why = "it takes virtiofsd: apt-get install virtiofsd; or use copy_from_host()"
            raise Unsupported(self.name, "shared_dir", "qemu", why)
        return self._shared

    # Only here

    def monitor(self) -> Monitor:
        """QEMU's monitor, for the present boot.

        :raise MachineDied: if the machine is off.
        """
        return self._machine.monitor

    def type_on_console(self, data: bytes) -> None:
        """Type into the serial console.

        :raise MachineDied: if the machine is off.
        """
        self._machine.type(data)

    @property
    def own_kernel(self) -> bool:
        """True."""
        return True

    @property
    def has_terminals(self) -> bool:
        """True."""
        return True

    def process_id(self) -> int:
        """The number of QEMU's process.

        :raise MachineDied: if the machine is off.
        """
        return self._machine.pid

    def release(self) -> None:
        """Let go of everything; whoever waits for the machine is told."""
        with self._power:
            self._released = True
        if boot := self._running:
            self._request(Request.KILL)
            boot.ended.wait(ASK_AGAIN)
            boot.end("its deployment was closed")


def _free_port() -> int:
    """A port of the host's loopback that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
