"""What a deployment owns on the host, and how all of it goes away."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network

from nxc_testing.backends.base import Access
from nxc_testing.backends.host import storage
from nxc_testing.backends.host.steps import try_all
from nxc_testing.backends.qemu import removal
from nxc_testing.backends.qemu.helpers import Gateway, Switch, Uplink, VdeSwitch
from nxc_testing.backends.qemu.node import QemuNode
from nxc_testing.backends.qemu.process import environment
from nxc_testing.composition import Plan, Segment
from nxc_testing.errors import DeploymentError
from nxc_testing.runs.journal import Record
from nxc_testing.session import Session


class QemuDeployment:
    """Machines of one composition. Every process of theirs bears the deployment's name.

    :ivar name: the run's id, with a number from the run's second deployment on.
    :ivar directory: where all of it is.
    :ivar environment: that of its processes.
    :ivar switch: what carries the frames of its networks.
    :ivar vlans: what carries those of the networks of start scripts, by the networks' names.
    """

    def __init__(self, session: Session, plan: Plan):
        self._session, self._plan = session, plan
        self.name = storage.deployment_name(session.id, session.number("qemu deployment"))
        self.directory = storage.directory_of(self.name, removal.STATE)
        mark = {removal.MARK: self.name, removal.OWNER: str(session.owner)}
        self.environment = environment(mark)
        self._record: Record | None = None
        self._nodes: list[QemuNode] = []
        self._gateways: dict[str, Gateway] = {}
        self._uplinks: list[Uplink] = []
        self._opening = threading.Lock()
        self._closing = threading.Lock()
        self._closed = False
        self.switch: Switch | None = None
        self.vlans: dict[str, VdeSwitch] = {}

    def __repr__(self) -> str:
        return f"<QemuDeployment {self.name}>"

    @property
    def nodes(self) -> Sequence[QemuNode]:
        """In the order of the plan."""
        return tuple(self._nodes)

    def announce(self) -> None:
        """Note with the session that there is something to release; before there is."""
        self._record = self._session.record(
            "qemu",
            self.name,
            composition=self._plan.composition.name,
            machines=[machine.instance.name for machine in self._plan.own],
        )
        storage.prepare(self.directory, str(self._session.owner))

    def add(self, node: QemuNode) -> None:
        """Take in a machine that was made."""
        self._nodes.append(node)

    def join(self, network: str, segment: Segment) -> None:
        """Let the machines meet those of another deployment.

        :raise DeploymentError: if they cannot.
        """
        assert self.switch
        self._uplinks.append(
            Uplink(
                self.switch,
                network,
                segment,
                directory=self.directory,
                environment=self.environment,
            )
        )

    def gateway(
        self, network: str, subnet: IPv4Network, host: IPv4Address, unused: IPv4Address
    ) -> Gateway:
        """The host's place in a network, made when it is first asked for.

        :param host: its address there.
        :param unused: another one that no machine has.
        :raise DeploymentError: if there can be none.
        """
        assert self.switch
        with self._opening:
            if network not in self._gateways:
                self._gateways[network] = Gateway(
                    self.switch,
                    network,
                    subnet,
                    host=host,
                    unused=unused,
                    directory=self.directory,
                    environment=self.environment,
                )
            return self._gateways[network]

    def access(self) -> Sequence[Access]:
        """How a person reaches each machine by hand."""
        return [Access(node.name, f"nc -U {node.directory}/port2") for node in self._nodes]

    def close(self) -> None:
        """Release everything, also after a failure in the middle; may be called twice.

        :raise DeploymentError: if something could not be released; the rest is.
        """
        with self._closing:
            if self._closed:
                return
            steps: list[Callable[[], object]] = [node.release for node in self._nodes]
            steps += [gateway.close for gateway in self._gateways.values()]
            steps += [uplink.close for uplink in self._uplinks]
            steps += [switch.close for switch in (self.switch, *self.vlans.values()) if switch]
            # Nothing should be left; but nothing may be left.
            steps.append(lambda: removal.kill(lambda deployment: deployment == self.name))
            if self.directory.exists():
                steps.append(lambda: removal.remove_directory(self.directory))
            failures = try_all(*steps)
            if failures:
                raise DeploymentError(
                    f"deployment {self.name} was not removed in full:\n"
                    + "\n".join(f"  {failure}" for failure in failures)
                )
            self._closed = True
            if self._record:
                self._session.forget(self._record)
