"""A deployment: what its machines know of each other, and that nothing is left of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from nxc_testing.backends.base import OwnKernel
from nxc_testing.conformance.target import PATIENCE, Target, opened
from nxc_testing.driver import Driver
from nxc_testing.errors import DeploymentError, MachineDied
from nxc_testing.machine import Machine


class TestDeployment:
    def test_nodes_have_their_names_and_addresses(self, driver: Driver) -> None:
        for machine in driver.machines:
            assert machine.node.name == machine.name
            assert list(machine.node.addresses) == ["lan"]
            ip_address(machine.node.addresses["lan"])

    def test_every_machine_can_be_reached_by_hand(self, driver: Driver) -> None:
        access = {one.machine: one.command for one in driver.deployment.access()}
        assert sorted(access) == ["alpha", "be-ta"]
        assert all(access.values())


@pytest.mark.usefixtures("system")
class TestIdentity:
    def test_machines_have_their_names(self, machine: Machine, victim: Machine) -> None:
        assert machine.succeed("hostname") == "alpha\n"
        assert victim.succeed("hostname") == "be-ta\n"

    def test_machines_find_each_other_by_all_names(self, machine: Machine, victim: Machine) -> None:
        address = victim.node.addresses["lan"]
        for name in ("be-ta", "be-ta1"):
            assert machine.succeed(f"getent hosts {name}").split()[0] == address

    def test_machines_reach_each_other(self, machine: Machine, victim: Machine) -> None:
        machine.wait_for_closed_port(9, victim.node.addresses["lan"], PATIENCE)
        found = victim.succeed("ip -4 -o address show scope global")
        assert victim.node.addresses["lan"] in found

    def test_machines_know_what_they_are(self, victim: Machine) -> None:
        facts = victim.succeed("cat /etc/nxc/role; echo; cat /etc/nxc/hostname").split()
        assert facts == ["be-ta", "be-ta"]

    def test_machines_know_the_deployment(self, machine: Machine) -> None:
        told = json.loads(machine.succeed("cat /etc/nxc/deployment.json"))
        assert "answer" in json.dumps(told)
        assert "a pinned value" not in json.dumps(told)

    def test_machines_share_secrets(self, machine: Machine, victim: Machine) -> None:
        show = "cat /etc/nxc/secrets/{0}; echo; stat -c %a /etc/nxc/secrets/{0}"
        assert machine.succeed(show.format("pinned")) == "a pinned value\n600\n"
        drawn = machine.succeed(show.format("drawn"))
        assert drawn == victim.succeed(show.format("drawn"))
        assert len(drawn.split()[0]) >= 32


@pytest.fixture
def own(conformance_target: Target, tmp_path: Path) -> Iterator[Driver]:
    """A deployment of the test's own."""
    with opened(conformance_target, tmp_path) as driver:
        yield driver
    shutil.rmtree(tmp_path / "out", ignore_errors=True)


class TestEnd:
    def test_nothing_is_started_before_it_is_used(self, own: Driver) -> None:
        assert not any(machine.is_up() for machine in own.machines)
        assert own.machines[0].node.boot is None

    def test_its_end_ends_the_machines(self, own: Driver) -> None:
        machine = own.machines[0]
        machine.connect()
        boot = machine.node.boot
        assert boot is not None
        own.close()
        assert boot.ended.is_set()
        own.close()
        own.deployment.close()
        with pytest.raises(MachineDied):
            machine.succeed("true")

    def test_after_its_end_nothing_starts(self, own: Driver) -> None:
        own.close()
        with pytest.raises(DeploymentError, match="closed"):
            own.machines[0].start()


class TestOwnKernel:
    def test_it_is_neither_the_hosts_nor_another_machines(
        self, machine: Machine, victim: Machine
    ) -> None:
        if not isinstance(machine.node, OwnKernel):
            pytest.skip(f"{machine.backend} has no OwnKernel")
        boot_id = "/proc/sys/kernel/random/boot_id"
        host = Path(boot_id).read_text()
        assert len({host, machine.succeed(f"cat {boot_id}"), victim.succeed(f"cat {boot_id}")}) == 3
