"""How machines start and end, and what stays.

A module of tests imports these and has a fixture `lab`.
"""

from __future__ import annotations

import threading

import pytest
from machine_lab import BOOTED, Lab, Node, boot, ended, run, run_and_lose, succeed, until

from nxc_testing.composition import Port, Volume
from nxc_testing.errors import ConnectionLost, DeploymentError, MachineDied, MachineUsageError


@pytest.fixture
def machine(lab: Lab) -> Node:
    node = lab.machine()
    boot(node)
    return node


def test_a_machine_that_was_not_started_has_no_boot(lab: Lab) -> None:
    node = lab.machine()
    assert node.boot is None
    with pytest.raises(MachineDied, match="never started"):
        node.open_channel()


def test_starting_a_running_machine_changes_nothing(machine: Node) -> None:
    before = machine.boot
    machine.start()
    assert machine.boot is before


def test_a_killed_machine_is_off_when_kill_returns(machine: Node) -> None:
    machine.kill()
    assert ended(machine, timeout=0).startswith("killed")


def test_a_kill_ends_open_channels(machine: Node) -> None:
    failures: list[BaseException] = []

    def command() -> None:
        try:
            run(machine, "sleep 100", 200)
        except AssertionError as error:
            failures.append(error)

    thread = threading.Thread(target=command)
    thread.start()
    until(lambda: run(machine, "pgrep -x sleep")[0] == 0)
    machine.kill()
    thread.join(5)
    assert failures


def test_a_channel_to_a_killed_machine_says_how_it_ended(machine: Node) -> None:
    machine.kill()
    with pytest.raises(MachineDied, match="killed"):
        machine.open_channel()


def test_killing_a_machine_that_is_off_does_nothing(machine: Node) -> None:
    machine.kill()
    machine.kill()


def test_stop_shuts_systemd_down(lab: Lab) -> None:
    node = lab.machine()
    console = bytearray()
    node.watch_console(console.extend)
    boot(node)
    assert node.stop(30)
    assert ended(node, timeout=0) == "it powered off"
    assert b"Reached target" in console.rpartition(b"Stopped")[2]


def test_stop_right_after_start_is_not_lost(lab: Lab) -> None:
    node = lab.machine()
    node.start()
    assert node.stop(30)


def test_stop_says_when_the_time_was_too_short(machine: Node) -> None:
    will_not_stop(machine)
    assert not machine.stop(1)


@pytest.mark.parametrize("command", ["systemctl poweroff", "poweroff -f", "halt"])
def test_a_machine_can_power_itself_off(machine: Node, command: str) -> None:
    machine.set_allow_reboot(True)
    run_and_lose(machine, command)
    assert ended(machine) == "it powered off"
    assert not machine.reboots_by_itself


@pytest.mark.parametrize("command", ["systemctl reboot", "reboot -f"])
def test_a_reboot_from_inside_starts_it_again_where_allowed(machine: Node, command: str) -> None:
    machine.set_allow_reboot(True)
    first = machine.boot
    run_and_lose(machine, command)
    assert first is not None
    assert first.ended.wait(20)
    assert first.reason == "it rebooted"
    until(lambda: machine.boot is not first)
    assert succeed(machine, BOOTED) == "running"
    assert not machine.reboots_by_itself


def test_reboot_gives_a_new_boot(machine: Node) -> None:
    first = machine.boot
    machine.reboot(30)
    assert first is not None
    assert first.reason == "it rebooted"
    assert machine.boot is not None
    assert machine.boot.number == 2
    assert succeed(machine, BOOTED) == "running"


def test_reboot_that_takes_too_long_says_so(machine: Node) -> None:
    will_not_stop(machine)
    with pytest.raises(DeploymentError, match=r"one: boot 1 did not end within 1\.0 s"):
        machine.reboot(1)


def test_what_stays_over_a_crash(lab: Lab) -> None:
    (node,) = lab.deploy(
        lab.role("one"), volumes=(Volume("users", "/users"),), secrets={"key": "value"}
    ).nodes
    boot(node)
    succeed(node, "echo root >/root/note; echo shared >/users/note; echo gone >/run/note")
    hosts = succeed(node, "cat /etc/hosts")
    address = succeed(node, "hostname -I")
    node.kill()
    boot(node)
    assert succeed(node, "cat /root/note /users/note") == "root\nshared"
    assert succeed(node, "cat /etc/nxc/role /etc/nxc/secrets/key") == "one\nvalue"
    assert succeed(node, "cat /etc/hosts") == hosts
    assert succeed(node, "hostname -I") == address
    assert run(node, "test -e /run/note")[0] == 1


def test_a_process_that_takes_too_much_memory_dies_alone(lab: Lab) -> None:
    node = lab.machine(memory=128 << 20)
    boot(node)
    assert run(node, "tail /dev/zero")[0] == 137
    assert succeed(node, "systemctl is-system-running") == "running"


def test_a_machine_without_memory_left_says_so_at_its_end(lab: Lab) -> None:
    node = lab.machine(memory=128 << 20)
    boot(node)
    run_and_lose(node, "cat /dev/zero >/run/fill")
    assert ended(node).startswith("out of memory")


def test_a_machine_that_does_not_start_says_why(lab: Lab) -> None:
    one, two = lab.deploy(lab.role("one", count=2, ports=(Port(80, 18080),))).nodes
    one.start()
    with pytest.raises(DeploymentError, match=r"one2 does not start.*18080"):
        two.start()
    assert two.boot is not None
    assert two.boot.ended.is_set()


def test_a_frozen_machine_stands_still_and_goes_on(machine: Node) -> None:
    succeed(machine, "systemd-run -q bash -c 'while echo >>/run/ticks; do sleep 0.05; done'")
    machine.freeze()
    machine.freeze()
    with pytest.raises(ConnectionLost, match=r"paused|frozen"):
        machine.open_channel()
    assert machine.boot is not None
    assert not machine.boot.ended.is_set()
    machine.thaw()
    machine.thaw()
    before = int(succeed(machine, "wc -l </run/ticks"))
    until(lambda: int(succeed(machine, "wc -l </run/ticks")) > before)


def test_a_frozen_machine_can_be_killed(machine: Node) -> None:
    machine.freeze()
    machine.kill()
    boot(machine)


def test_the_console_is_seen_from_the_first_byte_of_each_boot(lab: Lab) -> None:
    node = lab.machine()
    console = bytearray()
    node.watch_console(console.extend)
    for _ in range(2):
        console.clear()
        boot(node)
        until(lambda: b"Reached target" in console)
        assert console.startswith(b"systemd ")
        assert b"\x1b[0;32m" not in console
        node.kill()


def test_the_console_is_not_cut_at_eighty_columns(lab: Lab) -> None:
    node = lab.machine()
    console = bytearray()
    node.watch_console(console.extend)
    boot(node)
    until(lambda: b"multi-user.target" in console)
    assert "…".encode() not in console


def test_the_console_is_watched_once(lab: Lab) -> None:
    node = lab.machine()
    node.watch_console(lambda data: None)
    with pytest.raises(MachineUsageError):
        node.watch_console(lambda data: None)


def will_not_stop(node: Node) -> None:
    """Give a machine a service that does not end when it is asked to."""
    stubborn = "trap : TERM; touch /run/stubborn; while :; do sleep 1; done"
    succeed(node, f"systemd-run -q -p TimeoutStopSec=20 bash -c '{stubborn}'")
    succeed(node, "until test -e /run/stubborn; do sleep 0.05; done")
