"""Whatever happens to pytest, nothing of the run is left, on whatever makes its machines.

A module of tests imports these and has a fixture `lab`.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from run_lab import LONG, RunLab, output_of, run_lab, until

from nxc_testing.backends.base import Backend

ROOT = os.geteuid() == 0
WITH_DISK = 'disks = { vdb = "4M" }' if ROOT else ""
MORE = f"""
ports = [80]
{WITH_DISK}
[roles.two]
count = 2
[networks.lan]
[networks.wan]
[volumes.users]
path = "/users"
"""

WAIT = "def test_it(driver):\n    driver.start_all()\n    linger()\n"

COMMAND = f"""
def test_it(one):
    one.start()
    one.wait_for_unit("multi-user.target")
    reached("there")
    one.succeed("sleep {LONG}")
"""

FAULTS = """
def test_it(driver):
    driver.start_all()
    for machine in driver.machines:
        machine.wait_for_unit("multi-user.target")
    driver.machine("one").block()
    driver.machine("two1").node.freeze()
    linger()
"""

GREEN = "def test_it(one):\n    assert one.succeed('hostname') == 'one\\n'\n"


KINDS = {
    "docker": ("ps -a", "network ls", "volume ls", *(["/var/tmp"] if ROOT else [])),
    "nspawn": ("process", "control group", "network namespace", "network device", "/var/tmp"),
}
"""What a run has that was started, in the lab's words."""

MACHINE = {"docker": "container", "nspawn": "machine"}


def lab_on(backend: Backend, root: Path, runtime: Path) -> Iterator[RunLab]:
    """Runs on a backend of this host; what a failed test has left is reaped."""
    if why := backend.unavailable():
        pytest.skip(why)
    from nxc_testing.images.builder import ensure

    ensure("base")
    with run_lab(root, runtime, backend.name) as lab:
        yield lab
        for id_ in {one for run in lab.runs for one in run.ids if lab.left()}:
            lab.try_nxc_test("reap", id_)


@pytest.mark.parametrize("test", [WAIT, FAULTS], ids=["booting", "with faults"])
def test_kill_leaves_nothing(lab: RunLab, test: str) -> None:
    lab.composition(test, more=MORE)
    run = lab.start()
    run.reaches("there", 300)
    left = " ".join(lab.left())
    for kind in KINDS[lab.backend]:
        assert kind in left
    run.kill()
    lab.all_is_gone()


def test_kill_in_the_middle_of_a_deployment_leaves_nothing(lab: RunLab) -> None:
    lab.composition(WAIT, more=MORE)
    run = lab.start()
    until(lambda: KINDS[lab.backend][0] in " ".join(lab.left()), 120, "there is something")
    run.kill()
    lab.all_is_gone()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda one: one.name)
def test_a_signal_leaves_nothing(lab: RunLab, number: signal.Signals) -> None:
    lab.composition(COMMAND)
    run = lab.start()
    run.reaches("there", 300)
    run.kill(number)
    lab.all_is_gone()


def test_the_thread_of_pytest_timeout_leaves_nothing(lab: RunLab) -> None:
    mark = "@pytest.mark.timeout(1, method='thread', func_only=True)\n"
    lab.composition(mark + WAIT)
    assert lab.start().ends(300) == 1
    lab.all_is_gone()


def test_what_a_killed_run_was_doing_in_a_kept_machine_ends(lab: RunLab) -> None:
    lab.composition(COMMAND)
    run = lab.start("--nxc-keep")
    run.reaches("there", 300)
    (id_,) = run.ids

    def is_doing() -> bool:
        if lab.backend == "docker":
            return LONG in output_of("docker", "top", f"{id_}-one", "-eo", "pid,args")
        return any(f"sleep {LONG}" in thing for thing in lab.left())

    until(is_doing, 60, "the command runs")
    run.kill()
    until(lambda: not is_doing(), 10, "the command ends")
    assert f"{id_}  kept" in lab.nxc_test("ps")
    assert f"removed {MACHINE[lab.backend]} {id_}-one" in lab.nxc_test("reap", id_)
    assert lab.left() == []


def test_a_kept_run_can_be_reaped_without_its_directory(lab: RunLab) -> None:
    lab.composition(GREEN)
    run = lab.start("--nxc-keep")
    assert run.ends(300) == 0
    (directory,) = lab.directories()
    for file in directory.rglob("*"):
        file.unlink()
    directory.rmdir()
    (id_,) = run.ids
    assert f"{id_}  kept" in lab.nxc_test("ps")
    lab.nxc_test("reap", id_)
    assert lab.left() == []


def side_by_side(lab: RunLab, count: int) -> None:
    lab.composition(GREEN, more='[networks.lan]\n[volumes.users]\npath = "/users"\n')
    runs = [lab.start() for _ in range(count)]
    statuses = [run.ends(900) for run in runs]
    bad = [run.text for run, status in zip(runs, statuses, strict=True) if status]
    assert not bad, bad[0]
    lab.all_is_gone()


def test_runs_side_by_side_are_green_and_leave_nothing(lab: RunLab) -> None:
    side_by_side(lab, 4)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_runs_side_by_side_are_green_and_leave_nothing(lab: RunLab) -> None:
    side_by_side(lab, 20)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_kill_at_random_moments_leaves_nothing(lab: RunLab) -> None:
    """From the start of pytest, by way of deployment, boot, test and release, to its end."""
    lab.composition(
        "def test_it(driver):\n    driver.start_all()\n"
        "    assert driver.machine('one').succeed('hostname') == 'one\\n'\n",
        more=MORE,
    )
    began = time.monotonic()
    assert lab.start().ends(300) == 0, lab.runs[-1].text
    whole = time.monotonic() - began
    killed = 0
    moments = int(os.environ.get("NXC_KILLS", "50"))
    for moment in range(moments):
        run = lab.start()
        began = time.monotonic()
        try:
            # Evenly spread, and random between.
            run.ends((moment + random.random()) / moments * whole)
        except subprocess.TimeoutExpired:
            killed += 1
            run.kill()
        else:
            # The host has less to do by now, or more runs would outlive their moments.
            whole = min(whole, time.monotonic() - began)
        lab.all_is_gone()
    assert killed > moments * 0.7
