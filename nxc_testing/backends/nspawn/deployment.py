"""What a deployment owns on this host, and how all of it goes away."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from nxc_testing.backends.base import Access
from nxc_testing.backends.host import storage
from nxc_testing.backends.host.steps import try_all
from nxc_testing.backends.host.switch import Switch
from nxc_testing.backends.nspawn.node import LEADER, NspawnNode
from nxc_testing.backends.nspawn.removal import KIND, release_files
from nxc_testing.composition import Plan, Segment
from nxc_testing.errors import DeploymentError
from nxc_testing.runs.journal import Record
from nxc_testing.session import Session


class NspawnDeployment:
    """Machines of one composition. Everything it has on this host bears its name.

    :ivar name: stands first in the names of all it has.
    :ivar directory: where its files are.
    :ivar switch: its networks.
    :ivar networks: where they are, by their names in the composition.
    :ivar locks: held as long as it lives.
    """

    def __init__(self, session: Session, plan: Plan):
        self._session, self._plan = session, plan
        self.name = storage.deployment_name(session.id, session.number("nspawn deployment"))
        self.directory = storage.directory_of(self.name, KIND)
        self.switch = Switch(self.name)
        self.locks = ExitStack()
        self.networks: dict[str, Segment] = {}
        self._record: Record | None = None
        self._nodes: list[NspawnNode] = []
        self._closing = threading.Lock()
        self._closed = False

    def __repr__(self) -> str:
        return f"<NspawnDeployment {self.name}>"

    @property
    def nodes(self) -> Sequence[NspawnNode]:
        """In the order of the plan."""
        return tuple(self._nodes)

    @property
    def machines(self) -> list[str]:
        """The machines' names."""
        return [machine.instance.name for machine in self._plan.own]

    def segments(self) -> Mapping[str, Segment]:
        """Its networks, by their names in the composition."""
        return self.networks

    def announce(self) -> None:
        """Note with the session that there is something to release; before there is."""
        composition = self._plan.composition.name
        self._record = self._session.record(
            "nspawn", self.name, composition=composition, machines=self.machines
        )

    def add(self, node: NspawnNode) -> None:
        """Take in a machine that was made."""
        self._nodes.append(node)

    def access(self) -> Sequence[Access]:
        """How a person reaches each machine by hand."""
        spaces = "--mount --uts --ipc --net --pid --cgroup"
        return [
            Access(node.name, f"nsenter --target $(cat {node.directory / LEADER}) {spaces} bash -l")
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
                *(node.release for node in self.nodes),
                self.switch.remove,
                lambda: release_files(self.directory),
                self.locks.close,
            )
            if failures:
                raise DeploymentError(
                    f"deployment {self.name} was not removed in full:\n"
                    + "\n".join(f"  {failure}" for failure in failures)
                )
            self._closed = True
            if self._record:
                self._session.forget(self._record)
