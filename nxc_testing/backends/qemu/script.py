"""The way to a machine by a start script: a program that keeps the contract of NixOS' run-NAME-vm.

The script makes the disk and the command line of QEMU. What the driver needs of QEMU it gets as
arguments and in the environment, as from the NixOS test driver.
"""

from __future__ import annotations

import os
import re
import socket
import struct
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from nxc_testing.backends.base import Channel
from nxc_testing.backends.qemu.backdoor import Backdoor
from nxc_testing.backends.qemu.command import port_device, port_name
from nxc_testing.backends.qemu.helpers import LOOPBACK, connect, listen
from nxc_testing.backends.qemu.launch import PORTS, QMP, Reached, Started
from nxc_testing.backends.qemu.monitor import Monitor
from nxc_testing.composition import Role
from nxc_testing.errors import DeploymentError, Unsupported
from nxc_testing.waiting import Deadline

HUMAN, SHELL = "human-monitor", "shell"
CALLS = (HUMAN, SHELL)
"""The sockets where QEMU finds us, in the machine's directory."""

SCRIPT_TIMEOUT = 300.0
"""Seconds for a script to come to its QEMU; it may have to make a disk before."""

LOOK_EVERY = 0.2
CREDENTIALS = struct.Struct("3i")

LINK = re.compile(
    r"^(?P<nic>\S+): index=\d+,type=nic,.*\n \\ (?P<net>\S+): index=\d+,type=(\w+)", re.M
)
"""A network device of a machine in what the monitor says of networks, and what is behind it."""


@dataclass(frozen=True, slots=True)
class ScriptMachine:
    """What a start script is told.

    :ivar script: the program.
    :ivar directory: the machine's own; sockets are there.
    :ivar state: the directory that it works in.
    :ivar shared: a directory that all machines see.
    :ivar vlans: the directories of the networks' switches, by the networks' numbers.
    :ivar accelerator: what QEMU is told to run machines by; empty if the script decides.
    """

    name: str
    script: Path
    role: Role
    directory: Path
    state: Path
    shared: Path
    vlans: Mapping[int, Path] = field(default_factory=dict)
    accelerator: str = ""

    def environment(self) -> dict[str, str]:
        """The variables of the contract; what the user has in those for options stays first."""
        return {
            "TMPDIR": str(self.state),
            "USE_TMPDIR": "1",
            "SHARED_DIR": str(self.shared),
            "NIX_DISK_IMAGE": str(self.state / f"{self.name}.qcow2"),
            "QEMU_OPTS": _with_users("QEMU_OPTS", self._options()),
            "QEMU_KERNEL_PARAMS": _with_users("QEMU_KERNEL_PARAMS", self.role.kernel_parameters),
            **{f"QEMU_VDE_SOCKET_{number}": str(path) for number, path in self.vlans.items()},
        }

    def _options(self) -> list[str]:
        """What scripts hand on to QEMU: our serial ports, and what the role asks for."""
        options = ["-device", f"virtio-serial,id=ports,max_ports={len(PORTS) + 1}"]
        for number, name in enumerate(PORTS, 1):
            path = self.directory / name
            options += ["-chardev", f"socket,id={port_name(number)},path={path},server=on,wait=off"]
            options += ["-device", port_device(number)]
        if self.role.memory:
            options += ["-m", f"{self.role.memory >> 20}M"]
        if self.role.cpus:
            options += ["-smp", str(self.role.cpus)]
        if self.accelerator:
            options += ["-machine", f"accel={self.accelerator}"]
        return options

    def arguments(self) -> list[str]:
        """What the script gets, and hands on to QEMU behind its own options."""
        # The monitor is the last to be made: when it calls, the others are there.
        return [
            *("-qmp", f"unix:{self.directory / QMP},server=on,wait=off"),
            *("-chardev", f"socket,id=shell,path={self.directory / SHELL}"),
            *("-device", "virtio-serial,id=backdoor"),
            *("-device", "virtconsole,bus=backdoor.0,chardev=shell"),
            *("-device", "virtio-rng-pci", "-serial", "stdio", "-no-reboot", "-S"),
            *(() if _has_display() else ("-nographic",)),
            *("-monitor", f"unix:{self.directory / HUMAN}"),
        ]


class ScriptLauncher:
    """Runs a start script at each boot.

    :param environment: that of the deployment's processes.
    """

    what = "start script"

    def __init__(self, machine: ScriptMachine, environment: Mapping[str, str]):
        self._machine = machine
        self._environment = {**os.environ, **environment, **machine.environment()}
        self._listeners: list[socket.socket] = []
        self._forwards: dict[int, int] = {}

    def start(self) -> Started:
        """Run the script, with its console on pipes."""
        machine = self._machine
        for name in (QMP, *PORTS):
            (machine.directory / name).unlink(missing_ok=True)
        with ExitStack() as ours, ExitStack() as theirs:
            listeners = [ours.enter_context(listen(machine.directory / name)) for name in CALLS]
            (stdin, writer), (reader, stdout) = os.pipe(), os.pipe()
            for stack, end in ((theirs, stdin), (ours, writer), (ours, reader), (theirs, stdout)):
                stack.callback(os.close, end)
            try:
                process = subprocess.Popen(
                    [str(machine.script), *machine.arguments()],
                    env=self._environment,
                    cwd=machine.state,
                    stdin=stdin,
                    stdout=stdout,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise DeploymentError(f"{machine.script} cannot be started: {error}") from error
            ours.pop_all()
        self._listeners = listeners
        os.set_blocking(writer, False)

        def close() -> None:
            for end in (reader, writer):
                os.close(end)

        return Started(process, Channel(reader, writer, close))

    def reach(self, started: Started) -> Reached:
        """Wait until its QEMU calls, and call back."""
        machine, deadline = self._machine, Deadline(SCRIPT_TIMEOUT)
        with ExitStack() as stack:
            for listener in self._listeners:
                stack.enter_context(listener)
            with ExitStack() as kept:
                # Nobody speaks at the first: the other monitor takes the same commands.
                human, shell = (
                    kept.enter_context(self._accept(listener, started.process, deadline))
                    for listener in self._listeners
                )
                qmp = kept.enter_context(connect(machine.directory / QMP))
                ports = [machine.directory / name for name in PORTS]
                given = ports if all(path.exists() for path in ports) else []
                kept.pop_all()
            return Reached(qmp, _peer(human), given, Backdoor(machine.name, shell), human)

    def _accept(
        self, listener: socket.socket, process: subprocess.Popen[bytes], deadline: Deadline
    ) -> socket.socket:
        listener.settimeout(LOOK_EVERY)
        while True:
            with suppress(TimeoutError):
                connection, _ = listener.accept()
                connection.settimeout(None)
                return connection
            if process.poll() is not None:
                raise DeploymentError(f"{self._machine.script} ended, and started no QEMU")
            if deadline.expired:
                raise DeploymentError(
                    f"{self._machine.script} has not come to a QEMU with the arguments that it was "
                    f"given in {deadline.elapsed():.0f} s"
                )

    def ready(self, monitor: Monitor) -> None:
        """Lead the host's ports to the machine, as before its last end."""
        for host_port, guest_port in self._forwards.items():
            self._add_forward(monitor, host_port, guest_port)

    def links(self, monitor: Monitor) -> Sequence[str]:
        """All but the one by which it reaches the world outside."""
        return [
            nic for nic, _, kind in LINK.findall(monitor.human("info network")) if kind != "user"
        ]

    def forward(self, monitor: Monitor | None, host_port: int, guest_port: int) -> None:
        """By the user-mode network that the script gives its machine."""
        if monitor:
            self._add_forward(monitor, host_port, guest_port)
        self._forwards[host_port] = guest_port

    def _add_forward(self, monitor: Monitor, host_port: int, guest_port: int) -> None:
        networks = LINK.findall(monitor.human("info network"))
        user = next((net for _, net, kind in networks if kind == "user"), None)
        if user is None:
            why = "its start script gives it no user-mode network"
            raise Unsupported(self._machine.name, "forward_port", "qemu", why)
        rule = f"tcp:{LOOPBACK}:{host_port}-:{guest_port}"
        if said := monitor.human(f"hostfwd_add {user} {rule}").strip():
            raise DeploymentError(said)


def _with_users(variable: str, ours: Sequence[str]) -> str:
    """The user's own value of a variable, and ours behind it."""
    return " ".join(filter(None, (os.environ.get(variable), *ours)))


def _has_display() -> bool:
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _peer(connection: socket.socket) -> int:
    """The process at the other end of a Unix socket."""
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    return int(CREDENTIALS.unpack(packed)[0])
