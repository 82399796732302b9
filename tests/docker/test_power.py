"""How containers start and end, and what the engine says of it."""

# ruff: noqa: F403

from docker_lab import docker
from machine_lab import Node, ended, run_and_lose, until
from power import *


def test_a_kill_from_outside_is_noticed_within_a_second(machine: Node) -> None:
    docker("kill", machine.container_name)
    assert "137" in ended(machine, timeout=1)


def test_a_reboot_from_inside_leaves_it_off_otherwise(machine: Node) -> None:
    run_and_lose(machine, "systemctl reboot")
    assert ended(machine) == "it rebooted"
    assert not machine.reboots_by_itself
    until(lambda: not docker("ps", "-q", "--filter", f"id={machine.container}"))
