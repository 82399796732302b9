"""Processes that stand beside machines: the switch of their networks, and ways in from the host."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from nxc_testing.backends.qemu import switch, uplink
from nxc_testing.backends.qemu.command import PROGRAM
from nxc_testing.backends.qemu.monitor import Monitor
from nxc_testing.composition import Segment
from nxc_testing.errors import DeploymentError
from nxc_testing.images.cache import NAMESPACES
from nxc_testing.waiting import Deadline, poll

VIRTIOFSD = ("virtiofsd", "/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd")
"""Where distributions have it; up to QEMU 7.2 it is QEMU's own."""

VDE_SWITCH = "vde_switch"
"""What carries the networks of start scripts; Debian has it in vde2."""

BACKLOG = 64
TIMEOUT = 30.0
LOOPBACK = "127.0.0.1"


def listen(path: Path, backlog: int = 1) -> socket.socket:
    """A Unix socket that waits at a path; whoever connects is taken in later."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
        listener.listen(backlog)
    except BaseException:
        listener.close()
        raise
    return listener


def connect(path: Path) -> socket.socket:
    """A connection to a Unix socket."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(path))
    except BaseException:
        connection.close()
        raise
    return connection


def spawn(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    descriptors: Sequence[int] = (),
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a process that belongs to a deployment.

    It is in a session of its own: what is typed at pytest's terminal does not reach it.

    :param environment: its whole environment.
    :param log: takes what it prints.
    :param descriptors: those that it inherits.
    :param stdin: the one that it reads.
    :raise DeploymentError: if it cannot be started.
    """
    try:
        with log.open("ab") as output:
            return subprocess.Popen(
                command,
                env=environment,
                cwd="/",
                stdin=stdin,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=descriptors,
                start_new_session=True,
            )
    except OSError as error:
        raise DeploymentError(f"{command[0]} cannot be started: {error}") from error


class Switch:
    """The process that carries frames between the machines of a deployment.

    :param directory: the deployment's.
    :raise DeploymentError: if it cannot be started.
    """

    def __init__(self, directory: Path, environment: Mapping[str, str]):
        self._path = directory / "switch"
        with listen(self._path, BACKLOG) as listener:
            # Isolated, and by its path: nothing of the user's slows its start or stops it.
            command = [sys.executable, "-IS", switch.__file__, str(listener.fileno())]
            log = directory / "switch.log"
            self._process = spawn(command, environment, log, [listener.fileno()])

    def plug(self, network: str) -> socket.socket:
        """A connection to a network, for one QEMU.

        :raise DeploymentError: if the switch is gone.
        """
        try:
            with ExitStack() as stack:
                connection = stack.enter_context(connect(self._path))
                connection.settimeout(TIMEOUT)
                connection.sendall(f"{network}\n".encode())
                if connection.recv(1):
                    connection.settimeout(None)
                    stack.pop_all()
                    return connection
        except OSError as error:
            raise DeploymentError(f"the switch of the networks is gone: {error}") from error
        raise DeploymentError("the switch of the networks has ended")

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


class VdeSwitch:
    """A network of machines that connect to it by VDE, as start scripts do.

    :param directory: where it has its sockets.
    :param ports: how many machines it is for.
    :raise DeploymentError: if it cannot be started.
    """

    def __init__(self, directory: Path, ports: int, environment: Mapping[str, str]):
        self.directory = directory
        log = directory.with_suffix(".log")
        command = [
            *(VDE_SWITCH, "--sock", str(directory), "--dirmode", "0700", "--hub"),
            *("--numports", str(max(ports, 32))),
        ]
        # It ends when its input does, which therefore has its other end in itself.
        with ExitStack() as stack:
            read, write = os.pipe()
            stack.callback(os.close, read)
            stack.callback(os.close, write)
            self._process = spawn(command, environment, log, [write], stdin=read)
        ready = poll(
            lambda _: (directory / "ctl").exists() or self._process.poll() is not None,
            Deadline(TIMEOUT),
        )
        if not ready or self._process.poll() is not None:
            self.close()
            said = log.read_text(errors="replace").strip()
            raise DeploymentError(f"{VDE_SWITCH} makes no network: {said}")

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


class Uplink:
    """The process that joins a network of the switch and a bridge of this host.

    :param directory: the deployment's.
    :raise DeploymentError: if they cannot be joined.
    """

    def __init__(
        self,
        switch: Switch,
        network: str,
        segment: Segment,
        *,
        directory: Path,
        environment: Mapping[str, str],
    ):
        if os.geteuid():
            raise DeploymentError(
                f"network {network}: virtual machines can be in one network with containers where "
                "this is root, and here it is not"
            )
        place = ("ip", "netns", "exec", segment.namespace) if segment.namespace else ()
        log = directory / f"uplink-{network}.log"
        with switch.plug(network) as link:
            told, tells = os.pipe()
            with os.fdopen(told) as ready:
                descriptors = [link.fileno(), tells]
                arguments = [*(str(number) for number in descriptors), segment.bridge]
                command = [*place, sys.executable, "-IS", uplink.__file__, *arguments]
                try:
                    self._process = spawn(command, environment, log, descriptors)
                finally:
                    os.close(tells)
                if ready.read():
                    return
        self._process.wait()
        said = log.read_text(errors="replace").strip()
        raise DeploymentError(f"network {network}: no way to {segment.bridge}: {said}")

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


class Gateway:
    """The host in one network: lets ports of the host lead to machines there.

    It is a QEMU without a machine, that has its user-mode network stack on the network; it
    answers there at the last usable address, and gives no way out.

    :param network: the network's name.
    :param host: its own address there.
    :param unused: another address of the subnet that no machine has.
    :raise DeploymentError: if it cannot be started.
    """

    def __init__(
        self,
        switch: Switch,
        network: str,
        subnet: IPv4Network,
        *,
        host: IPv4Address,
        unused: IPv4Address,
        directory: Path,
        environment: Mapping[str, str],
    ):
        with ExitStack() as stack:
            link = stack.enter_context(switch.plug(network))
            path = directory / f"gateway-{network}"
            listener = stack.enter_context(listen(path))
            # It wants an address for each of its services; nobody here uses them.
            services = f"dns={unused},dhcpstart={subnet[1]}"
            options = f"net={subnet},host={host},{services}"
            command = [
                *(PROGRAM, "-nodefaults", "-no-user-config", "-display", "none"),
                *("-machine", "none"),
                *("-chardev", f"socket,id=monitor,fd={listener.fileno()},server=on,wait=off"),
                *("-mon", "chardev=monitor,mode=control"),
                *("-netdev", f"user,id=user,ipv6=off,restrict=on,{options}"),
                *("-netdev", f"socket,id=link,fd={link.fileno()}"),
                *("-netdev", "hubport,id=hub-user,hubid=0,netdev=user"),
                *("-netdev", "hubport,id=hub-link,hubid=0,netdev=link"),
            ]
            log = directory / f"gateway-{network}.log"
            descriptors = [listener.fileno(), link.fileno()]
            self._process = spawn(command, environment, log, descriptors)
            monitor = connect(path)
        try:
            self._monitor = Monitor(f"gateway of {network}", monitor)
        except DeploymentError as error:
            self._process.kill()
            self._process.wait()
            raise DeploymentError(f"{error}\n{log.read_text(errors='replace')}") from error

    def forward(self, host_port: int, address: IPv4Address, port: int) -> None:
        """Let a port of the host's loopback lead to a machine's port.

        :raise DeploymentError: if the host's port is taken.
        """
        rule = f"tcp:{LOOPBACK}:{host_port}-{address}:{port}"
        if said := self._monitor.human(f"hostfwd_add user {rule}").strip():
            raise DeploymentError(said)

    def close(self) -> None:
        """End it."""
        self._monitor.close()
        self._process.kill()
        self._process.wait()


def virtiofsd() -> str | None:
    """The program that gives a directory of the host to a machine; None if there is none."""
    return next((found for name in VIRTIOFSD if (found := shutil.which(name))), None)


def share(directory: Path, path: Path, environment: Mapping[str, str]) -> None:
    """Give a directory of the host to one machine for one boot; the process ends with QEMU.

    :param path: the socket where QEMU finds it.
    :raise DeploymentError: if it cannot be started.
    """
    program = virtiofsd()
    if program is None:
        raise DeploymentError("volumes are shared by virtiofsd, which is not installed")
    with listen(path) as listener:
        command = [
            *(NAMESPACES if os.geteuid() else ()),
            *(program, f"--fd={listener.fileno()}", "--rlimit-nofile=0"),
            # Locks are between machines.
            *("-o", f"source={directory},cache=none,flock,posix_lock"),
        ]
        log = path.with_suffix(".log")
        process = spawn(command, environment, log, [listener.fileno()])
    # Somebody has to take note of its end.
    threading.Thread(target=process.wait, name="nxc-virtiofsd-end", daemon=True).start()
