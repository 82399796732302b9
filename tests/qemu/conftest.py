"""Machines of QEMU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from qemu_lab import deployed

from nxc_testing.backends.qemu import QemuBackend
from nxc_testing.composition import Role
from nxc_testing.driver import Driver
from nxc_testing.images import Image
from nxc_testing.images.builder import ensure
from nxc_testing.machine import Machine


@pytest.fixture(scope="session")
def base() -> Image:
    """The built-in image."""
    if why := QemuBackend().unavailable():
        pytest.skip(why)
    return ensure("base")


@pytest.fixture(scope="module")
def driver(base: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """One machine, for all tests of a module."""
    root = tmp_path_factory.mktemp("qemu")
    with deployed(base, root, Role("box", "base", networks=("lan",))) as one:
        yield one


@pytest.fixture
def box(driver: Driver) -> Machine:
    """A machine that is on; tests may end it."""
    machine = driver.machine("box")
    if machine.node.boot and machine.node.boot.ended.is_set():
        machine.crash()
        machine.start()
    machine.connect()
    return machine
