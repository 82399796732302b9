"""How containers start and end, and what this host shows of it."""

# ruff: noqa: F403

import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from machine_lab import Lab, Node, boot, ended, run_and_lose, succeed, until
from nspawn_lab import groups_of, leader, left_of, sleeping
from power import *

from nxc_testing.errors import DeploymentError


def test_a_kill_of_its_init_from_outside_is_noticed_within_a_second(machine: Node) -> None:
    os.kill(leader(machine), signal.SIGKILL)
    assert ended(machine, timeout=1).startswith("killed")


def test_a_kill_of_systemd_nspawn_is_its_end(machine: Node) -> None:
    length = "70001.25"
    succeed(machine, f"systemd-run -q sleep {length}")
    until(lambda: sleeping(length))
    psutil.Process(leader(machine)).parent().kill()
    assert ended(machine, timeout=2).startswith("killed")
    assert sleeping(length) == []


def test_what_a_shell_started_is_in_the_machines_groups_and_dies_with_it(machine: Node) -> None:
    length = "70002.25"
    succeed(machine, f"setsid sleep {length} >/dev/null 2>&1 </dev/null &")
    until(lambda: sleeping(length))
    (group,) = groups_of(*sleeping(length))
    assert group.endswith("-one")
    machine.kill()
    assert sleeping(length) == []


def test_a_machine_that_is_off_has_only_its_files(machine: Node, lab: Lab) -> None:
    machine.kill()
    name = lab.deployments[0].name
    assert [path for path in left_of(name) if "cgroup" in path] == []


def test_a_reboot_from_inside_leaves_it_off_otherwise(machine: Node) -> None:
    run_and_lose(machine, "systemctl reboot")
    assert ended(machine) == "it rebooted"
    assert not machine.reboots_by_itself


def test_a_start_that_fails_says_what_was_said(lab: Lab) -> None:
    node = lab.machine()
    (node.directory / "lower").unlink()
    (node.directory / "lower").symlink_to("/nonexistent")
    with pytest.raises(DeploymentError, match=r"one does not start: (.|\n)*overlay"):
        node.start()
    assert left_of(lab.deployments[0].name)


def test_a_kept_machine_goes_on_without_the_driver_and_is_reached_by_hand(
    lab: Lab, tmp_path: Path
) -> None:
    session = lab.session()
    session.keep()
    deployment = lab.deploy(lab.role("one"), session=session)
    boot(*deployment.nodes)
    (access,) = deployment.access()
    done = subprocess.run(
        access.command, shell=True, input="hostname\n", capture_output=True, text=True, check=True
    )
    assert done.stdout == "one\n"
    console = deployment.nodes[0].directory / "console"
    until(lambda: b"multi-user.target" in console.read_bytes())
