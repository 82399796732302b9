"""Power: on, off, cut, restarted; and what a test is told when a machine dies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

import pytest

from nxc_testing.backends.base import Boot, Reboots
from nxc_testing.conformance.target import LENGTHS, PATIENCE, Attempt, eventually
from nxc_testing.driver import Driver
from nxc_testing.errors import MachineDied, WaitTimeout
from nxc_testing.events import CommandFinished, Event, FaultChanged, MachineEnded, MachineStarted
from nxc_testing.machine import Machine

NOTICE = 1.0
"""Seconds after a machine's end in which whoever waits for it is told."""

LAST_WORDS = "last words of the victim"


def boot_of(machine: Machine) -> Boot:
    """A machine's present boot."""
    assert machine.node.boot is not None
    return machine.node.boot


def power_events(events: list[Event]) -> list[tuple[type[Event], int]]:
    """Starts and ends of machines, with the numbers of their boots."""
    return [(type(e), e.boot) for e in events if isinstance(e, (MachineStarted, MachineEnded))]


class TestPower:
    def test_a_machine_that_is_on_is_not_started_again(self, machine: Machine) -> None:
        boot = boot_of(machine)
        machine.start()
        machine.start(allow_reboot=False)
        assert machine.node.boot is boot

    def test_what_was_shut_down_is_off_until_the_next_command(
        self, victim: Machine, events: list[Event]
    ) -> None:
        number = boot_of(victim).number
        assert [victim.is_up(), victim.booted] == [True, True]
        victim.shutdown(timedelta(seconds=120))
        assert [victim.is_up(), victim.booted] == [False, False]
        victim.shutdown()
        assert victim.succeed("echo on") == "on\n"
        assert power_events(events) == [(MachineEnded, number), (MachineStarted, number + 1)]

    def test_what_crashed_is_off_until_the_next_wait(
        self, victim: Machine, events: list[Event]
    ) -> None:
        number = boot_of(victim).number
        victim.crash()
        assert not victim.is_up()
        victim.crash()
        victim.wait_for_file("/tmp", 120)
        assert boot_of(victim).number == number + 1
        (fault,) = [event for event in events if isinstance(event, FaultChanged)]
        assert (fault.fault, fault.active) == ("crash", True)

    def test_files_outlive_a_crash_and_processes_do_not(self, victim: Machine) -> None:
        length = next(LENGTHS)
        path = victim.succeed("mktemp -p /var/tmp").strip()
        victim.succeed(f"echo kept >{path}; sync; sleep {length} >/dev/null 2>&1 &")
        victim.succeed(f"pgrep -xf 'sleep {length}'")
        victim.crash()
        victim.start()
        assert victim.succeed(f"cat {path}; rm {path}") == "kept\n"
        victim.fail(f"pgrep -xf 'sleep {length}'")

    def test_release_cuts_the_power_and_who_waits_for_that_is_told(self, victim: Machine) -> None:
        waiting = Attempt(victim.wait_for_shutdown)
        victim.release()
        assert not victim.is_up()
        assert not victim.connected
        assert waiting.wait().error is None
        victim.wait_for_shutdown()

    def test_waiting_for_its_end_has_a_deadline(self, machine: Machine) -> None:
        with pytest.raises(WaitTimeout, match="its shutdown"):
            machine.wait_for_shutdown(timedelta(seconds=0.2))

    def test_connections_are_made_again(self, machine: Machine) -> None:
        """As scripts write it; nothing is lost by it."""
        machine.connected = False
        assert [machine.connected] == [False]
        machine.connect()
        assert machine.connected
        assert machine.succeed("echo on") == "on\n"

    def test_a_closed_shell_is_opened_again(self, machine: Machine) -> None:
        machine.connection.close()
        eventually(lambda: not machine.connected, "a closed shell")
        assert machine.succeed("echo on") == "on\n"
        assert machine.connected


@pytest.fixture
def rebooting(victim: Machine) -> Machine:
    """The victim, where it can be restarted."""
    if not isinstance(victim.node, Reboots):
        pytest.skip(f"{victim.backend} has no Reboots")
    return victim


class TestReboot:
    def test_it_is_a_new_boot(self, rebooting: Machine, events: list[Event], console: str) -> None:
        number, length = boot_of(rebooting).number, next(LENGTHS)
        path = rebooting.succeed("mktemp -p /var/tmp").strip()
        rebooting.succeed(f"sleep {length} >/dev/null 2>&1 &")
        rebooting.succeed(f"echo of the old boot >{console}")
        rebooting.wait_for_console_text("of the old boot", PATIENCE)
        rebooting.reboot()
        assert boot_of(rebooting).number == number + 1
        rebooting.fail(f"pgrep -xf 'sleep {length}'")
        rebooting.succeed(f"rm {path}")
        assert "of the old boot" not in rebooting.get_console_log()
        assert power_events(events) == [(MachineEnded, number), (MachineStarted, number + 1)]

    def test_a_command_that_it_interrupts_is_told(self, rebooting: Machine) -> None:
        length = next(LENGTHS)
        command = Attempt(lambda: rebooting.succeed(f"sleep {length}"))
        rebooting.wait_until_succeeds(f"pgrep -xf 'sleep {length}'", PATIENCE)
        rebooting.reboot(timedelta(seconds=120))
        assert isinstance(command.wait().error, MachineDied)

    def test_what_is_off_is_on_after_it(self, rebooting: Machine) -> None:
        rebooting.crash()
        rebooting.reboot()
        assert rebooting.is_up()


@pytest.mark.usefixtures("system")
class TestRebootFromInside:
    @pytest.fixture
    def free(self, rebooting: Machine) -> Iterator[Machine]:
        """The victim, which comes back when it reboots by itself."""
        rebooting.crash()
        rebooting.start(allow_reboot=True)
        yield rebooting
        rebooting.crash()

    def test_where_it_may_it_comes_back(self, free: Machine) -> None:
        """The way of upstream's scripts."""
        free.connect()
        number = boot_of(free).number
        free.execute("systemctl reboot", check_output=False)
        free.connected = False
        free.connect()
        assert boot_of(free).number == number + 1
        assert free.succeed("echo on") == "on\n"

    def test_a_wait_goes_on_over_it(self, free: Machine, events: list[Event]) -> None:
        # In /run, which is new at every boot.
        free.succeed("touch /run/first-boot")
        number = boot_of(free).number
        free.execute("sleep 0.5; systemctl reboot", check_output=False)
        free.wait_until_fails("test -e /run/first-boot", timeout=120)
        assert boot_of(free).number == number + 1
        told = (MachineStarted, number + 1)
        eventually(lambda: told in power_events(events), "the event of the new boot")

    def test_where_it_may_not_it_is_off(self, rebooting: Machine) -> None:
        rebooting.execute("systemctl reboot", check_output=False)
        rebooting.wait_for_shutdown(timeout=120)
        assert not rebooting.is_up()

    def test_a_poweroff_is_waited_for(self, victim: Machine) -> None:
        victim.succeed("systemctl poweroff")
        victim.wait_for_shutdown(timeout=120)
        assert not victim.is_up()


ACTIVITIES: dict[str, Callable[[Machine], object]] = {
    "a command": lambda machine: machine.succeed("sleep 1000"),
    "another command": lambda machine: machine.execute("cat /dev/zero >/dev/null"),
    "a wait for a file": lambda machine: machine.wait_for_file("/nowhere"),
    "a wait for a port": lambda machine: machine.wait_for_open_port(1),
    "a wait for a command": lambda machine: machine.wait_until_succeeds("sleep 1000"),
    "a wait for the console": lambda machine: machine.wait_for_console_text("never said"),
}


@dataclass(frozen=True, slots=True)
class Death:
    """What followed when a machine died in the middle of everything.

    :ivar off: when it was off, on the monotonic clock.
    :ivar attempts: what went on, by name.
    :ivar elsewhere: what went on on the other machine.
    :ivar events: what was told of it.
    """

    off: float
    attempts: dict[str, Attempt]
    elsewhere: Attempt
    events: list[Event]


@pytest.fixture(scope="class")
def death(driver: Driver, console: str) -> Iterator[Death]:
    """A machine dies in the middle of everything."""
    machine, other = driver.machine("be-ta"), driver.machine("alpha")
    machine.succeed(f"echo {LAST_WORDS} >{console}")
    machine.wait_for_console_text(LAST_WORDS, PATIENCE)
    events: list[Event] = []
    unsubscribe = driver.session.events.subscribe(events.append)
    elsewhere = Attempt(lambda: other.succeed("sleep 2; echo done"))
    attempts = {
        name: Attempt(lambda do=do: do(machine))  # type: ignore[misc]
        for name, do in ACTIVITIES.items()
    }
    machine.succeed("sleep 1")
    assert [name for name, attempt in attempts.items() if not attempt.is_alive()] == []
    machine.node.kill()
    off = time.monotonic()
    for attempt in (*attempts.values(), elsewhere):
        attempt.wait()
    unsubscribe()
    yield Death(off, attempts, elsewhere, events)
    machine.crash()
    machine.start()


@pytest.fixture
def dead(death: Death, driver: Driver) -> Machine:
    """A machine that died."""
    machine = driver.machine("be-ta")
    machine.node.kill()
    return machine


class TestDeath:
    """`node.kill()` is a death that nobody asked for; `crash()` is one that the test asked for."""

    @pytest.mark.parametrize("activity", ACTIVITIES)
    def test_it_ends_what_goes_on_within_a_second(self, death: Death, activity: str) -> None:
        attempt = death.attempts[activity]
        assert isinstance(attempt.error, MachineDied)
        assert attempt.ended - death.off < NOTICE

    @pytest.mark.parametrize("activity", ACTIVITIES)
    def test_its_error_says_who_and_how_with_its_last_words(
        self, death: Death, driver: Driver, activity: str
    ) -> None:
        error = death.attempts[activity].error
        assert isinstance(error, MachineDied)
        assert error.machine == "be-ta"
        assert error.reason
        assert error.doing
        for part in ("be-ta died", error.reason, error.doing, LAST_WORDS):
            assert part in str(error)

    def test_its_error_names_the_command(self, death: Death) -> None:
        assert "during command `sleep 1000`" in str(death.attempts["a command"].error)

    def test_commands_that_it_ends_have_no_status(self, death: Death) -> None:
        ends = [e for e in death.events if isinstance(e, CommandFinished) and e.status is None]
        assert len(ends) == 2
        assert all("died" in end.error for end in ends)

    def test_other_machines_do_not_notice(self, death: Death, machine: Machine) -> None:
        assert death.elsewhere.result == "done\n"
        assert machine.succeed("echo on") == "on\n"

    @pytest.mark.parametrize(
        "use",
        [
            lambda machine: machine.succeed("true"),
            lambda machine: machine.execute("true", check_output=False),
            lambda machine: machine.wait_for_file("/tmp"),
            lambda machine: machine.wait_for_console_text("x", 1),
            lambda machine: machine.copy_from_host("/etc/hostname", "/tmp/hostname"),
            lambda machine: machine.connect(),
            lambda machine: machine.interact("true"),
        ],
    )
    def test_it_is_not_started_behind_the_tests_back(
        self, dead: Machine, use: Callable[[Machine], object]
    ) -> None:
        number = boot_of(dead).number
        with pytest.raises(MachineDied, match=LAST_WORDS):
            use(dead)
        assert boot_of(dead).number == number

    def test_it_starts_when_it_is_told_to(self, dead: Machine) -> None:
        dead.start()
        assert dead.succeed("echo on") == "on\n"

    def test_who_waits_for_its_end_is_content(self, dead: Machine) -> None:
        dead.wait_for_shutdown(timeout=10)
        assert dead.succeed("echo on") == "on\n"


@pytest.mark.usefixtures("system")
class TestOwnEnd:
    def test_a_machine_that_ends_itself_dies(self, victim: Machine) -> None:
        attempt = Attempt(lambda: victim.succeed("systemctl poweroff --force --force; sleep 1000"))
        assert isinstance(attempt.wait().error, MachineDied)
        victim.crash()
        victim.start()
