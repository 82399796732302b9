"""What the tests of this composition share: a directory of the share that both clients have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from nxc_testing.driver import Driver
    from nxc_testing.machine import Machine


@pytest.fixture
def share(driver: Driver, server: Machine, client1: Machine, client2: Machine) -> Iterator[str]:
    """A new directory that both clients see under this path; what is held in it is let go."""
    driver.start_all()
    server.wait_for_unit("nfs-server")
    for client in (client1, client2):
        client.unblock()
        client.succeed("mountpoint --quiet /mnt || mount -t nfs4 server:/ /mnt", timeout=120)
    yield client1.succeed("mktemp --directory /mnt/test.XXXXXX", timeout=120).strip()
    client1.execute("systemctl stop holder")


@pytest.fixture
def held(share: str, client1: Machine) -> str:
    """A file that client1 has a lock on, in the unit `holder`."""
    file = f"{share}/lock"
    holder = f"flock {file} sh -c 'touch {file}.held; exec sleep infinity'"
    client1.succeed(f"systemd-run --quiet --collect --unit=holder {holder}")
    client1.wait_for_file(f"{file}.held", timeout=60)
    return file
