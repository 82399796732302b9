"""What a deployment owns in the engine and on the host, and how all of it goes away."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from nxc_testing.backends.base import Access
from nxc_testing.backends.docker.engine import Engine
from nxc_testing.backends.docker.networks import BridgeNetwork
from nxc_testing.backends.docker.node import DockerNode
from nxc_testing.backends.docker.removal import DISKS, LABEL_DEPLOYMENT, remove
from nxc_testing.backends.docker.watch import Death, Watch
from nxc_testing.backends.host import disks, storage
from nxc_testing.backends.host.steps import try_all
from nxc_testing.backends.host.switch import DEVICES
from nxc_testing.composition import Plan, Segment
from nxc_testing.errors import DeploymentError
from nxc_testing.runs.journal import Record
from nxc_testing.session import LABEL_COMPOSITION, Session


class DockerDeployment:
    """Machines of one composition. Everything it has in the engine bears its name as a label.

    :ivar name: stands first in the names of all it has in the engine.
    :ivar networks: by their names in the composition.
    :ivar locks: held as long as it lives.
    """

    def __init__(self, engine: Engine, session: Session, plan: Plan):
        self.engine, self._session, self._plan = engine, session, plan
        self.name = storage.deployment_name(session.id, session.number("docker deployment"))
        self.labels = {
            **session.labels,
            LABEL_COMPOSITION: plan.composition.name,
            LABEL_DEPLOYMENT: self.name,
        }
        self.networks: Mapping[str, BridgeNetwork] = {}
        self._record: Record | None = None
        self.locks = ExitStack()
        self._nodes: dict[str, DockerNode] = {}
        self._watch: Watch | None = None
        self._closing = threading.Lock()
        self._closed = False

    def __repr__(self) -> str:
        return f"<DockerDeployment {self.name}>"

    @property
    def nodes(self) -> Sequence[DockerNode]:
        """In the order of the plan."""
        return tuple(self._nodes.values())

    @property
    def label(self) -> str:
        """The label by which the engine finds what belongs to it."""
        return f"{LABEL_DEPLOYMENT}={self.name}"

    def segments(self) -> Mapping[str, Segment]:
        """Its networks, by their names in the composition.

        :raise DeploymentError: if the engine is on another host.
        """
        for network in self.networks.values():
            if not (DEVICES / network.bridge).exists():
                raise DeploymentError(
                    f"the engine at {self.engine.host} has the networks where this host has no "
                    "part in them: virtual machines cannot be there"
                )
        return {name: Segment(one.subnet, one.bridge) for name, one in self.networks.items()}

    def announce(self) -> None:
        """Note with the session that there is something to release; before there is."""
        self._record = self._session.record(
            "docker",
            f"{self.engine.host} {self.name}",
            composition=self._plan.composition.name,
            machines=[machine.instance.name for machine in self._plan.own],
        )

    def watch(self) -> None:
        """Notice from now on how containers end."""
        self._watch = Watch(self.engine, self.label, self._on_death, self._on_lost)

    def add(self, node: DockerNode) -> None:
        """Take in a machine that was made."""
        self._nodes[node.container] = node

    def _on_death(self, container: str, death: Death) -> None:
        if node := self._nodes.get(container):
            node.on_death(death)

    def _on_lost(self, reason: str) -> None:
        for node in self.nodes:
            node.on_lost(reason)

    def access(self) -> Sequence[Access]:
        """How a person reaches each machine by hand."""
        return [
            Access(node.name, f"docker exec -it {node.container_name} bash -l")
            for node in self.nodes
        ]

    def close(self) -> None:
        """Release everything, also after a failure in the middle; may be called twice.

        :raise DeploymentError: if something could not be released; the rest is.
        """
        with self._closing:
            if self._closed:
                return
            failures = try_all(
                self._stop_watching,
                *(node.release for node in self.nodes),
                lambda: remove(self.engine, self.label),
                self._remove_disks,
                self.locks.close,
                self.engine.close,
            )
            if failures:
                raise DeploymentError(
                    f"deployment {self.name} was not removed in full:\n"
                    + "\n".join(f"  {failure}" for failure in failures)
                )
            self._closed = True
            if self._record:
                self._session.forget(self._record)

    def _stop_watching(self) -> None:
        if self._watch:
            self._watch.close()
            self._watch = None

    def _remove_disks(self) -> None:
        directory = storage.directory_of(self.name, DISKS)
        if directory.exists():
            disks.release(directory)
