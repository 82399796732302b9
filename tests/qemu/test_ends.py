"""However a virtual machine comes to its end, who waits for it is told soon, and why."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import pytest

from nxc_testing.conformance.target import Attempt, eventually
from nxc_testing.driver import Driver
from nxc_testing.errors import DeploymentError, MachineDied
from nxc_testing.machine import Machine

SOON = 2.0
"""Seconds from the machine's end until everybody is told."""

LONG = 120.0
"""Seconds; an emulated machine on a busy host takes some to come to its end."""


def end_of(machine: Machine, bring_about: Callable[[], object]) -> MachineDied:
    """What a wait is told when a machine ends."""
    waits = [
        Attempt(lambda: machine.wait_for_console_text("never said")),
        Attempt(lambda: machine.succeed("sleep 1000")),
    ]
    machine.succeed("true")
    boot, ended = machine.node.boot, list[float]()
    assert boot is not None
    boot.on_end(lambda: ended.append(time.monotonic()))
    bring_about()
    assert boot.ended.wait(LONG)
    for wait in waits:
        error = wait.wait().error
        assert isinstance(error, MachineDied)
        assert wait.ended - ended[0] < SOON
    return error


def test_a_panic_is_told_with_its_reason(box: Machine) -> None:
    error = end_of(box, lambda: box.execute("echo c >/proc/sysrq-trigger", check_output=False))
    assert "kernel panic: sysrq triggered crash" in error.reason.lower() or (
        "kernel panic" in error.reason
    )
    assert "Kernel panic - not syncing" in error.console


def test_want_of_memory_is_told(box: Machine) -> None:
    eat = "perl -e 'push @all, q(x) x (1 << 20) while 1'"
    error = end_of(box, lambda: box.execute(eat, check_output=False))
    assert "ut of memory" in error.reason


def test_a_killed_qemu_is_told(box: Machine) -> None:
    error = end_of(box, lambda: os.kill(box.pid, signal.SIGKILL))
    assert "signal 9" in error.reason


def test_a_stopped_qemu_is_told(box: Machine) -> None:
    error = end_of(box, lambda: os.kill(box.pid, signal.SIGSTOP))
    assert "SIGSTOP" in error.reason


def test_a_qemu_that_is_told_to_quit_is_told(box: Machine) -> None:
    error = end_of(box, lambda: box.node.monitor().human("quit"))  # type: ignore[attr-defined]
    assert "quit" in error.reason


def test_emergency_mode_is_told(box: Machine) -> None:
    error = end_of(box, lambda: box.execute("systemctl emergency", check_output=False))
    assert error.reason == "it is in emergency mode"


def test_garbage_on_the_console_ends_nothing(box: Machine) -> None:
    box.succeed("head -c 300K /dev/urandom >/dev/ttyS0; echo; echo; echo behind it >/dev/ttyS0")
    box.wait_for_console_text("behind it", 60)
    assert box.succeed("echo on") == "on\n"


def test_a_machine_that_cannot_boot_says_why(driver: Driver) -> None:
    box = driver.machine("box")
    box.crash()
    disk = box.node.directory / "root.qcow2"  # type: ignore[attr-defined]
    whole = disk.read_bytes()
    disk.write_bytes(b"no disk at all")
    try:
        with pytest.raises(DeploymentError, match=r"QEMU ended with status 1: .*root\.qcow2"):
            box.start()
        assert not box.is_up()
    finally:
        disk.write_bytes(whole)
    box.start()
    assert box.succeed("echo on") == "on\n"


def test_a_shell_that_ends_in_the_machine_is_lost_and_replaced(box: Machine) -> None:
    waiting = Attempt(lambda: box.succeed("sleep 1000"))
    eventually(lambda: box.execute("pgrep -x sleep")[0] == 0, "the command")
    box.execute("pkill -9 -x nxc-agent", check_output=False)
    assert "was killed" in str(waiting.wait().error)
    assert box.succeed("echo on") == "on\n"
