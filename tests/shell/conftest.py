"""Shells on this host and in a container: every test of the shell runs in both."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from shell_lab import Place, docker_place, local_place, reap_children

from nxc_testing.backends.docker import DockerBackend
from nxc_testing.backends.docker.node import DockerNode
from nxc_testing.backends.fake import FakeBackend
from nxc_testing.conformance.target import Target, opened
from nxc_testing.driver import Driver
from nxc_testing.shell import Shell

PLACES = ("local", "docker")


@pytest.fixture(scope="session", params=PLACES)
def driver(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Driver]:
    """Two machines, one of each kind of channel a parameter."""
    if request.param == "local":
        target = Target(FakeBackend(), "none")
    else:
        if why := DockerBackend().unavailable():
            pytest.skip(why)
        from nxc_testing.images.builder import ensure

        target = Target(DockerBackend(), ensure("base"))
    with opened(target, tmp_path_factory.mktemp(request.param)) as driver:
        driver.start_all()
        yield driver


@pytest.fixture(scope="session")
def place(driver: Driver) -> Place:
    machine = driver.machine("alpha")
    machine.connect()
    return docker_place(machine.node) if isinstance(machine.node, DockerNode) else local_place()


@pytest.fixture(scope="session")
def shell(place: Place) -> Iterator[Shell]:
    """A shell that tests share, and leave whole."""
    shell = place.shell()
    yield shell
    shell.close()


@pytest.fixture
def own_shell(place: Place) -> Iterator[Shell]:
    """A shell that a test may break."""
    shell = place.shell()
    yield shell
    shell.close()


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    assert reap_children() == []
