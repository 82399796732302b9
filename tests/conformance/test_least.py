"""A backend that has only what every backend must have passes what it can be asked for.

It is written as someone else would write one, with the fake's machines behind it.
"""

# ruff: noqa: F403, F405

from collections.abc import Callable, Mapping, Sequence

import pytest

from nxc_testing.backends.base import Access, Boot, Channel
from nxc_testing.backends.fake import CONSOLE, FakeBackend, FakeDeployment, FakeNode
from nxc_testing.composition import Plan
from nxc_testing.conformance.capabilities import *
from nxc_testing.conformance.faults import *
from nxc_testing.conformance.power import *
from nxc_testing.conformance.target import *
from nxc_testing.session import Session


class LeastNode:
    """A machine that can be started, stopped, killed and talked to."""

    def __init__(self, fake: FakeNode):
        self._fake = fake

    @property
    def name(self) -> str:
        return self._fake.name

    @property
    def addresses(self) -> Mapping[str, str]:
        return self._fake.addresses

    @property
    def boot(self) -> Boot | None:
        return self._fake.boot

    def start(self) -> None:
        self._fake.start()

    def stop(self, timeout: float) -> bool:
        return self._fake.stop(timeout)

    def kill(self) -> None:
        self._fake.kill()

    def open_channel(self) -> Channel:
        return self._fake.open_channel()

    def watch_console(self, sink: Callable[[bytes], None]) -> None:
        self._fake.watch_console(sink)


class LeastDeployment:
    """Machines, and nothing beside them."""

    def __init__(self, fake: FakeDeployment):
        self._fake = fake
        self.nodes: Sequence[LeastNode] = [LeastNode(node) for node in fake.nodes]

    def access(self) -> Sequence[Access]:
        return self._fake.access()

    def close(self) -> None:
        self._fake.close()


class LeastBackend:
    """A kind of machine."""

    name = "least"

    def unavailable(self) -> str | None:
        return None

    def node_type(self) -> type[LeastNode]:
        return LeastNode

    def deploy(self, plan: Plan, session: Session) -> LeastDeployment:
        return LeastDeployment(FakeBackend().deploy(plan, session))


@pytest.fixture(scope="session")
def conformance_target() -> Target:
    return Target(LeastBackend(), image="none", console=f"${CONSOLE}")
