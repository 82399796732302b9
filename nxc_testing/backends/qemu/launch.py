"""How a machine's QEMU comes to be at each boot: what every way to one gives, and our own way."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nxc_testing.backends.base import Channel
from nxc_testing.backends.qemu.backdoor import Backdoor
from nxc_testing.backends.qemu.command import (
    SHELLS,
    Descriptors,
    Hardware,
    command,
    link_name,
    port_name,
)
from nxc_testing.backends.qemu.helpers import connect, listen, spawn
from nxc_testing.backends.qemu.monitor import Monitor

QMP = "monitor"
"""The socket of QEMU's machine protocol, in the machine's directory."""

PORTS = tuple(port_name(number) for number in range(1, SHELLS + 2))
"""The sockets of the serial ports there: the one for orders, and those of shells."""


@dataclass(frozen=True, slots=True)
class Started:
    """A process that is, or becomes, a QEMU.

    :ivar console: what the machine's serial console prints and reads.
    :ivar log: a file that has what QEMU itself says; None where it says that on the console.
    """

    process: subprocess.Popen[bytes]
    console: Channel
    log: Path | None = None


@dataclass(frozen=True, slots=True)
class Reached:
    """A QEMU that answers.

    :ivar pid: its own number.
    :ivar ports: the sockets of the serial ports; empty if the machine has none of ours.
    :ivar backdoor: the shell that the machine opens by itself; None if it opens all of ours.
    :ivar held: a connection that QEMU wants somebody at, for as long as it lives.
    """

    monitor: socket.socket
    pid: int
    ports: Sequence[Path]
    backdoor: Backdoor | None = None
    held: socket.socket | None = None


class Launcher(Protocol):
    """One way to the QEMU of a machine."""

    what: str
    """What is started, for messages."""

    def start(self) -> Started:
        """Start it; the machine waits for QMP's `cont`.

        :raise DeploymentError: if it cannot be started.
        """

    def reach(self, started: Started) -> Reached:
        """Come to terms with it.

        :raise DeploymentError: if it ends before, or does not answer in time.
        """

    def ready(self, monitor: Monitor) -> None:
        """Do what is left before the machine runs."""

    def links(self, monitor: Monitor) -> Sequence[str]:
        """What QEMU calls the machine's links to its networks."""

    def forward(self, monitor: Monitor | None, host_port: int, guest_port: int) -> None:
        """Let a port of the host's loopback lead to one of the machine, at later boots too.

        :param monitor: of the present boot; None if the machine is off.
        :raise DeploymentError: if the host's port is taken.
        """


class ImageLauncher:
    """Makes the command line of QEMU itself, for a machine from an image.

    :param directory: the machine's own.
    :param environment: that of its processes.
    :param prepare: called before each boot; gives connections to the machine's networks.
    :param forward: lets a port of the host lead to one of this machine.
    """

    what = "QEMU"

    def __init__(
        self,
        hardware: Hardware,
        directory: Path,
        environment: Mapping[str, str],
        *,
        prepare: Callable[[], list[socket.socket]],
        forward: Callable[[int, int], None],
    ):
        self._hardware, self._directory, self._environment = hardware, directory, environment
        self._prepare, self._forward = prepare, forward

    def start(self) -> Started:
        """Start QEMU, with sockets that wait for us."""
        log = self._directory / "qemu.log"
        log.unlink(missing_ok=True)
        names = (QMP, "console", *PORTS)
        with ExitStack() as stack:
            links = [stack.enter_context(link) for link in self._prepare()]
            listeners = [stack.enter_context(listen(self._directory / name)) for name in names]
            monitor, console, *ports = (listener.fileno() for listener in listeners)
            inherited = Descriptors(monitor, console, ports, [link.fileno() for link in links])
            line = command(self._hardware, inherited, self._directory / "console.log")
            process = spawn(line, self._environment, log, inherited.all)
        console_end = connect(self._directory / "console")
        number = console_end.fileno()
        return Started(process, Channel(number, number, console_end.close), log)

    def reach(self, started: Started) -> Reached:
        """Connect; it was listening before it was started."""
        ports = [self._directory / name for name in PORTS]
        return Reached(connect(self._directory / QMP), started.process.pid, ports)

    def ready(self, monitor: Monitor) -> None:
        """Nothing is left."""

    def links(self, monitor: Monitor) -> Sequence[str]:
        """In the order of the machine's networks."""
        return [link_name(number) for number in range(len(self._hardware.networks))]

    def forward(self, monitor: Monitor | None, host_port: int, guest_port: int) -> None:
        """By the host's place in the machine's first network; so it outlives a boot."""
        self._forward(host_port, guest_port)
