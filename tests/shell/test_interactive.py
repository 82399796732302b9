"""Programs on a terminal: what is typed and shown arrives, and nothing stays behind."""

from __future__ import annotations

import os
import secrets

import pexpect
import pytest
from shell_lab import LENGTHS, PATIENCE, wait_until

from nxc_testing.driver import Driver
from nxc_testing.errors import MachineDied, MachineUsageError
from nxc_testing.machine import Machine


@pytest.fixture(scope="module")
def machine(driver: Driver) -> Machine:
    machine = driver.machine("alpha")
    machine.connect()
    return machine


def gone(machine: Machine, command: str) -> bool:
    return wait_until(lambda: machine.execute(f"pgrep -fx '{command}'")[0] == 1)


def test_a_dialogue(machine: Machine) -> None:
    with machine.interact("read -rp 'name? ' name; echo hello $name", timeout=PATIENCE) as program:
        program.expect_exact("name? ")
        program.sendline("\N{LATIN SMALL LETTER E WITH ACUTE}a")
        program.expect_exact("hello \N{LATIN SMALL LETTER E WITH ACUTE}a\r\n")
        program.expect(pexpect.EOF)


def test_what_is_typed_at_once_is_not_lost(machine: Machine) -> None:
    with machine.interact("cat", timeout=PATIENCE) as program:
        for number in range(200):
            program.sendline(f"line {number}")
        program.expect_exact("line 199\r\n")


def test_it_is_a_terminal_of_its_size(machine: Machine) -> None:
    with machine.interact("tty; stty size", timeout=PATIENCE, rows=33, columns=111) as program:
        program.expect(r"/dev/pts/\d+\r\n33 111\r\n")


def test_much_output_that_nobody_reads_for_long_is_not_lost(machine: Machine) -> None:
    word = secrets.token_hex(8)
    with machine.interact(f"seq 300000; sleep 1; echo {word}", timeout=PATIENCE) as program:
        # The end has been sent before anything is read.
        assert wait_until(lambda: machine.execute(f"pgrep -f {word}")[0] == 1)
        program.expect_exact("\r\n150000\r\n150001\r\n")
        program.expect_exact(f"299999\r\n300000\r\n{word}")


def test_control_c_reaches_the_program(machine: Machine) -> None:
    # Not one long sleep: what is interrupted before it has begun to sleep goes on to do so.
    command = "trap 'echo interrupted; exit' INT; echo on; while :; do sleep 0.1; done"
    with machine.interact(command, timeout=PATIENCE) as program:
        program.expect_exact("on\r\n")
        program.sendintr()
        program.expect_exact("interrupted\r\n")


def test_control_d_is_the_end_of_input(machine: Machine) -> None:
    with machine.interact("cat; echo over", timeout=PATIENCE) as program:
        program.sendeof()
        program.expect_exact("over\r\n")


def test_there_is_no_control_key_for_a_word(machine: Machine) -> None:
    with (
        machine.interact("cat", timeout=PATIENCE) as program,
        pytest.raises(MachineUsageError, match="Ctrl-'ab'"),
    ):
        program.sendcontrol("ab")


def test_a_program_is_waited_for_to_its_own_end(machine: Machine) -> None:
    with machine.interact("echo on; sleep 0.3; echo over; exit 7", timeout=PATIENCE) as program:
        program.expect_exact("on\r\n")
        assert program.wait() == 7
        assert program.before == "over\r\n"


def test_a_program_that_does_not_end_is_not_waited_for_forever(machine: Machine) -> None:
    with (
        machine.interact(f"sleep {next(LENGTHS)}", timeout=0.3) as program,
        pytest.raises(pexpect.TIMEOUT),
    ):
        program.wait()


@pytest.mark.parametrize(
    "command",
    [
        "sleep {0}",
        "su nobody -s /bin/bash -c 'sleep {0}'",
        "trap '' TERM INT; sleep {0}",
        "sleep {0} & wait",
    ],
)
def test_close_ends_the_program(machine: Machine, command: str) -> None:
    sleep = f"sleep {next(LENGTHS)}"
    program = machine.interact(command.format(sleep.split()[1]))
    assert wait_until(lambda: machine.execute(f"pgrep -fx '{sleep}'")[0] == 0)
    program.close()
    program.close()
    assert gone(machine, sleep)


def test_nothing_of_it_stays_behind(machine: Machine) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with machine.interact("echo over", timeout=PATIENCE) as program:
            program.expect_exact("over\r\n")
            program.expect(pexpect.EOF)
        with machine.interact(f"echo on; sleep {next(LENGTHS)}", timeout=PATIENCE) as program:
            program.expect_exact("on\r\n")
    assert gone(machine, "script .*echo o.*")
    assert wait_until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)


def test_the_end_of_the_machine_is_the_end_of_the_program(driver: Driver) -> None:
    victim = driver.machine("be-ta")
    victim.start()
    victim.connect()
    with victim.interact("echo on; cat", timeout=PATIENCE) as program:
        program.expect_exact("on\r\n")
        victim.crash()
        with pytest.raises(MachineDied):
            program.wait()
