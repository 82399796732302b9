"""One machine: its boots, its shells, its links and its ports."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from nxc_testing.backends.base import Boot, Channel
from nxc_testing.backends.host.forward import Relays
from nxc_testing.backends.host.power import PoweredNode, Request
from nxc_testing.backends.nspawn.cgroups import Group
from nxc_testing.backends.nspawn.container import REBOOTED, Container
from nxc_testing.backends.nspawn.links import MachineLinks
from nxc_testing.composition import Role
from nxc_testing.errors import ConnectionLost, DeploymentError, MachineDied, Unsupported

logger = logging.getLogger("nxc_testing.nspawn")

SIGNALS = {
    # systemd(1): start halt.target, and reboot.target.
    Request.POWEROFF: signal.SIGRTMIN + 3,
    Request.REBOOT: signal.SIGRTMIN + 5,
}

NEWS_TIMEOUT = 2.0
END_TIMEOUT = 60.0
LEADER = "leader"
"""The file in a machine's directory that has the host's number of its PID 1."""


@dataclass(frozen=True, slots=True)
class Blueprint:
    """Everything that a machine is made of.

    :ivar directory: where it has its files.
    :ivar shared: what it shares with the host and all others.
    :ivar notify: a path for its notification socket, of less than 108 bytes.
    :ivar command: what starts it, run in its directory.
    :ivar environment: for that, beside the user's.
    :ivar capabilities: what shells in it may have.
    :ivar host_address: by which the host reaches it; None where the host is in none of its
        networks.
    :ivar disks: the host's devices of its disks.
    :ivar kept: whether it is to go on when this process has ended.
    """

    role: Role
    directory: Path
    shared: Path
    notify: Path
    command: Sequence[str]
    environment: Mapping[str, str]
    capabilities: Sequence[str]
    host_address: str | None
    disks: Sequence[str]
    kept: bool


class NspawnNode(PoweredNode):
    """A machine that is a systemd-nspawn container.

    :param name: the host's name.
    :param addresses: by network; the primary one first.
    :param group: the control group for all that runs in it.
    :param links: to its networks.
    """

    def __init__(
        self,
        name: str,
        addresses: Mapping[str, str],
        blueprint: Blueprint,
        *,
        group: Group,
        links: MachineLinks,
    ):
        super().__init__(name, addresses)
        self._blueprint, self._group, self._links = blueprint, group, links
        self._container: Container | None = None
        self._watcher: threading.Thread | None = None
        self._relays = Relays(name)
        self._published: dict[int, int] = {}
        self._cut = self._frozen = self._killed = False

    def __repr__(self) -> str:
        return f"<NspawnNode {self._name!r} {self._group.name}>"

    @property
    def directory(self) -> Path:
        """Where it has its files on this host."""
        return self._blueprint.directory

    @property
    def shared_dir(self) -> Path:
        """The directory that all machines share."""
        return self._blueprint.shared

    # Power

    def _switch_on(self, boot: Boot) -> None:
        self._frozen = self._killed = False
        try:
            self._publish()
            self._prepare()
            container = self._launch()
        except (OSError, DeploymentError) as error:
            raise DeploymentError(f"{self._name} does not start: {error}") from error
        (self.directory / LEADER).write_text(f"{container.leader}\n")
        self._container = container
        self._watcher = threading.Thread(
            target=self._watch, args=(boot, container), name=f"nxc-{self._name}", daemon=True
        )
        self._watcher.start()

    def _launch(self) -> Container:
        blueprint = self._blueprint
        container = Container(
            blueprint.command,
            self.directory,
            blueprint.environment,
            blueprint.notify,
            self._sink,
            log=self.directory / "console" if blueprint.kept else None,
        )
        try:
            container.wait_ready()
            if self._cut:
                self._links.switch(False)
        except BaseException:
            container.close()
            self._clear()
            raise
        return container

    def _prepare(self) -> None:
        """What must be there anew at each boot."""
        role, group = self._blueprint.role, self._group
        group.make()
        if role.memory:
            group.limit_memory(role.memory)
        if role.cpus:
            group.limit_cpus(role.cpus)
        if not role.privileged:
            group.allow_devices([*role.devices, *self._blueprint.disks])
        directories = "".join(f"{directory}\n" for directory in group.directories)
        (self.directory / "groups").write_text(directories)
        self._links.prepare(self.directory, up=not self._cut)

    def _watch(self, boot: Boot, container: Container) -> None:
        """Wait for the end of a boot, see that nothing of it runs, and tell it."""
        status = container.wait()
        reason = self._reason(status)
        try:
            self._clear()
        except Exception:
            logger.exception("%s: what it leaves could not be taken away", self._name)
        container.close()
        self._ended(boot, reason, wants_reboot=status == REBOOTED)

    def _reason(self, status: int) -> str:
        if status == REBOOTED:
            return "it rebooted"
        if status == 0:
            return "it powered off"
        if self._killed:
            return "killed"
        if self._group.out_of_memory():
            return "out of memory: the kernel killed it"
        how = f"signal {-status}" if status < 0 else f"exit code {status}"
        return f"killed, systemd-nspawn ended with {how}"

    def _clear(self) -> None:
        """Take away what a boot has of this host; whatever of it still runs is killed."""
        with ExitStack() as steps:
            steps.callback(self._links.remove)
            steps.callback(self._group.remove)
            steps.callback(self._group.kill)

    def _request(self, request: Request) -> None:
        if request is Request.KILL:
            self._killed = True
            self._group.kill()
        elif self._container:
            self._container.signal(SIGNALS[request])

    # Shells

    def open_channel(self) -> Channel:
        """A new root shell, beside those already open.

        :raise MachineDied: if the machine is off.
        :raise ConnectionLost: if it is frozen.
        """
        with self._power:  # A start that is under way comes first.
            boot, container = self._require_boot(), self._container
        if self._frozen:
            raise ConnectionLost(f"{self._name}: it is frozen, and starts no shell")
        assert container is not None
        try:
            return container.open_shell(self._blueprint.capabilities, self.directory / "shells")
        except OSError as error:
            # It may have ended just now, and the news is on its way.
            if boot.ended.wait(NEWS_TIMEOUT):
                raise MachineDied(self._name, boot.reason) from error
            raise ConnectionLost(f"{self._name}: a shell: {error}") from error

    # Faults

    def freeze(self) -> None:
        """Stop every process; connections and shells stay open."""
        self._require_boot()
        self._frozen = True
        self._group.freeze(True)

    def thaw(self) -> None:
        """Continue."""
        self._require_boot()
        self._group.freeze(False)
        self._frozen = False

    def set_link(self, up: bool) -> None:
        """Cut all its networks, or restore them. Shells and connections survive.

        It can be called while the machine is off, and holds from one boot to the next.

        :raise DeploymentError: if it cannot be done.
        """
        with self._power:
            self._cut = not up
            if self._running:
                self._links.switch(up)

    # Ports

    def _publish(self) -> None:
        for port in self._blueprint.role.ports:
            if port.guest not in self._published:
                self._published[port.guest] = self._relay(port.host, port.guest)

    def _relay(self, host_port: int, guest_port: int) -> int:
        """Let a port of the host lead to one of the machine.

        :return: the host's.
        """
        address = self._blueprint.host_address
        if address is None:
            why = "machines of a start script are in its networks, and the host is not"
            raise Unsupported(self._name, "forward_port", "nspawn", why)
        return self._relays.add(host_port, (address, guest_port)).port

    def published_ports(self) -> Mapping[int, int]:
        """The host's ports on 127.0.0.1 by the machine's, of those that its role publishes.

        :raise MachineDied: if it is off.
        """
        self._require_boot()
        return dict(self._published)

    def forward_port(self, host_port: int, guest_port: int) -> None:
        """Let 127.0.0.1:host_port on the host lead to guest_port in the machine.

        It goes by the machine's first network, and so is cut with it.

        :raise Unsupported: if the host does not reach its networks.
        :raise DeploymentError: if the host's port is taken.
        """
        self._relay(host_port, guest_port)

    def release(self) -> None:
        """Switch it off for good; whoever waits for it is told.

        :raise DeploymentError: if something of it still runs.
        """
        with self._power:
            self._released = True
        self._relays.close()
        if boot := self._running:
            boot.end("its deployment was closed")
        self._clear()
        if self._watcher:
            self._watcher.join(END_TIMEOUT)
