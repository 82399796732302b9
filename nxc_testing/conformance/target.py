"""What the suite runs against, and the machines it uses."""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from nxc_testing.backends.base import Backend
from nxc_testing.composition import Composition, Network, Role, TestScript, make_plan
from nxc_testing.driver import Driver
from nxc_testing.events import Event
from nxc_testing.images import Image
from nxc_testing.machine import Machine
from nxc_testing.session import Session

LENGTHS = itertools.count(1_000_000 + secrets.randbelow(100_000_000))
"""Lengths for `sleep`, each given once, so that a test finds its own and on a host no other's."""

PATIENCE = 30.0
"""Seconds after which the suite gives up on something that takes a moment on a slow host."""


@dataclass(frozen=True, slots=True)
class Target:
    """A backend, and what its machines run.

    :ivar image: a built image, or the name of one that the backend has already.
    :ivar console: in the machine's shell, the file that is its console.
    """

    backend: Backend
    image: Image | str
    console: str = "/dev/console"


def composition_for(target: Target, root: Path, *, script: Path | None = None) -> Composition:
    """Two machines on a network; one has a name that is no Python name."""
    roles = [Role(name, str(target.image), networks=("lan",)) for name in ("alpha", "be-ta")]
    return Composition(
        "conformance",
        root,
        root / "composition.toml",
        tuple(roles),
        (Network("lan"),),
        test_script=TestScript(script) if script else None,
        secrets={"drawn": None, "pinned": "a pinned value"},
        parameters={"answer": 42},
    )


@contextmanager
def opened(target: Target, root: Path, *, script: Path | None = None) -> Iterator[Driver]:
    """A deployment of its own, released at the end.

    :param root: for the run and for what is copied from machines; it exists.
    """
    composition = composition_for(target, root, script=script)
    plan = make_plan(composition, {role.name: target.image for role in composition.roles})
    with ExitStack() as stack:
        session = Session(root)
        stack.callback(session.close)
        deployment = target.backend.deploy(plan, session)
        stack.callback(deployment.close)
        driver = Driver(composition, deployment, session, target.backend.name, out_dir=root / "out")
        stack.callback(driver.close)
        yield driver


@pytest.fixture(scope="module")
def driver(
    conformance_target: Target, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Driver]:
    """The machines that the tests of a module share."""
    root = tmp_path_factory.mktemp("conformance")
    script = root / "test_script.py"
    with opened(conformance_target, root, script=script) as driver:
        driver.start_all()
        yield driver


@pytest.fixture
def machine(driver: Driver) -> Machine:
    """A machine that is on, and that tests leave so."""
    return driver.machine("alpha")


@pytest.fixture
def victim(driver: Driver) -> Machine:
    """A machine that is on, and that tests may break; whoever comes next has it whole again."""
    machine = driver.machine("be-ta")
    machine.start()
    machine.connect()
    return machine


@pytest.fixture
def scratch(machine: Machine) -> Iterator[str]:
    """An empty directory in `machine`."""
    path = machine.succeed("mktemp -d").strip()
    yield path
    machine.succeed(f"rm -rf {path}")


@pytest.fixture
def system(conformance_target: Target) -> None:
    """For tests of what only a machine with a system of its own has."""
    if not hasattr(conformance_target.backend.node_type(), "own_system"):
        pytest.skip(f"{conformance_target.backend.name}: its machines are no systems of their own")


@pytest.fixture(scope="session")
def console(conformance_target: Target) -> str:
    """In a machine's shell, the file that is its console."""
    return conformance_target.console


@pytest.fixture
def events(driver: Driver) -> Iterator[list[Event]]:
    """What happens during the test."""
    seen: list[Event] = []
    unsubscribe = driver.session.events.subscribe(seen.append)
    yield seen
    unsubscribe()


class Attempt(threading.Thread):
    """Something that is done in a thread of its own, and how it ended.

    :ivar error: what it raised; None if nothing.
    :ivar result: what it returned.
    :ivar ended: when, on the monotonic clock.
    """

    def __init__(self, action: Callable[[], object]):
        super().__init__(daemon=True)
        self._action = action
        self.error: BaseException | None = None
        self.result: object = None
        self.ended = 0.0
        self.start()

    def run(self) -> None:
        """Do it."""
        try:
            self.result = self._action()
        except BaseException as error:
            self.error = error
        finally:
            self.ended = time.monotonic()

    def wait(self) -> Attempt:
        """Wait for its end.

        :return: itself.
        """
        self.join(PATIENCE)
        assert not self.is_alive(), "it did not end"
        return self


def eventually(look: Callable[[], bool], what: str) -> None:
    """Wait until something about the host or the driver is so."""
    give_up = time.monotonic() + PATIENCE
    while not look():
        assert time.monotonic() < give_up, f"never came: {what}"
        time.sleep(0.01)
