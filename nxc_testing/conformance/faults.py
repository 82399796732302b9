"""Faults: links that are cut, and machines that hang; the control channel survives both."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nxc_testing.backends.base import Freezes, Links
from nxc_testing.conformance.ports import Server
from nxc_testing.conformance.target import PATIENCE, Attempt
from nxc_testing.errors import WaitTimeout
from nxc_testing.events import Event, FaultChanged
from nxc_testing.machine import Machine


def faults(events: list[Event]) -> list[tuple[str, bool]]:
    """Faults as they came and went."""
    return [(e.fault, e.active) for e in events if isinstance(e, FaultChanged)]


@pytest.fixture
def linked(victim: Machine, system: None) -> Iterator[Machine]:
    """The victim, where its links can be cut; they are restored."""
    if not isinstance(victim.node, Links):
        pytest.skip(f"{victim.backend} has no Links")
    yield victim
    victim.unblock()


class TestLinks:
    def test_a_blocked_machine_is_out_of_reach_and_comes_back(
        self, machine: Machine, linked: Machine
    ) -> None:
        scratch = linked.succeed("mktemp -d").strip()
        port = Server(linked, scratch).port
        machine.wait_for_open_port(port, linked.name, PATIENCE)
        linked.block()
        machine.wait_for_closed_port(port, linked.name, PATIENCE)
        linked.unblock()
        machine.wait_for_open_port(port, linked.name, PATIENCE)

    def test_a_blocked_machine_reaches_nobody(
        self, machine: Machine, linked: Machine, scratch: str
    ) -> None:
        port = Server(machine, scratch).port
        linked.wait_for_open_port(port, machine.name, PATIENCE)
        linked.block()
        linked.wait_for_closed_port(port, machine.name, PATIENCE)

    def test_commands_go_on(self, linked: Machine) -> None:
        running = Attempt(lambda: linked.succeed("sleep 0.5; echo done"))
        linked.block()
        assert linked.succeed("echo on") == "on\n"
        assert running.wait().result == "done\n"

    def test_its_own_ports_stay_open(self, linked: Machine) -> None:
        scratch = linked.succeed("mktemp -d").strip()
        port = Server(linked, scratch).port
        linked.block()
        linked.wait_for_open_port(port, timeout=PATIENCE)

    def test_twice_is_as_good_as_once(self, linked: Machine, events: list[Event]) -> None:
        for change in (linked.block, linked.block, linked.unblock, linked.unblock):
            change()
        assert linked.succeed("echo on") == "on\n"
        assert faults(events) == [("block", True)] * 2 + [("block", False)] * 2


@pytest.fixture
def freezable(victim: Machine) -> Iterator[Machine]:
    """The victim, where it can be frozen; it is continued."""
    if not isinstance(victim.node, Freezes):
        pytest.skip(f"{victim.backend} has no Freezes")
    yield victim
    if victim.is_up():
        victim.thaw()


class TestFreeze:
    def test_nothing_runs_until_it_continues(self, freezable: Machine, events: list[Event]) -> None:
        freezable.freeze()
        assert freezable.execute("echo on", timeout=0.5) == (124, "")
        freezable.thaw()
        assert freezable.succeed("echo on", timeout=PATIENCE) == "on\n"
        assert faults(events) == [("freeze", True), ("freeze", False)]

    def test_a_command_that_it_holds_up_goes_on(self, freezable: Machine) -> None:
        path = freezable.succeed("mktemp -d").strip()
        waits = f"until test -e {path}/go; do sleep 0.05; done; echo gone on"
        running = Attempt(lambda: freezable.succeed(f"touch {path}/begun; {waits}"))
        freezable.wait_for_file(f"{path}/begun", PATIENCE)
        freezable.freeze()
        freezable.thaw()
        freezable.succeed(f"touch {path}/go")
        assert running.wait().result == "gone on\n"
        freezable.succeed(f"rm -r {path}")

    def test_a_wait_ends_at_its_deadline(self, freezable: Machine) -> None:
        freezable.freeze()
        with pytest.raises(WaitTimeout, match="last exit code 124, ended after"):
            freezable.wait_until_succeeds("true", timeout=0.5)

    def test_a_wait_for_a_unit_ends_at_its_deadline(self, freezable: Machine, system: None) -> None:
        freezable.freeze()
        with pytest.raises(WaitTimeout, match="systemctl did not answer"):
            freezable.wait_for_unit("multi-user.target", timeout=0.5)

    def test_others_go_on(self, machine: Machine, freezable: Machine) -> None:
        freezable.freeze()
        assert machine.succeed("echo on") == "on\n"

    def test_a_frozen_machine_can_crash(self, freezable: Machine) -> None:
        freezable.freeze()
        freezable.crash()
        assert not freezable.is_up()
        assert freezable.succeed("echo on") == "on\n"
