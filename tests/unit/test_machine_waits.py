"""How waits pace themselves; what they wait for is in the conformance suite."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from nxc_testing import waiting
from nxc_testing.backends.fake import FakeBackend
from nxc_testing.composition import Composition, Role, make_plan
from nxc_testing.conformance.target import Attempt, eventually
from nxc_testing.driver import Driver
from nxc_testing.errors import MachineDied, MachineError, WaitTimeout
from nxc_testing.events import Event, WaitFinished, WaitStarted
from nxc_testing.machine import Machine
from nxc_testing.session import Session
from nxc_testing.waiting import Deadline


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    roles = (Role("one", "none"), Role("two", "none"))
    composition = Composition("unit", tmp_path, tmp_path / "composition.toml", roles, ())
    session = Session(tmp_path)
    plan = make_plan(composition, {role.name: "none" for role in roles})
    with Driver(composition, FakeBackend().deploy(plan, session), session, "fake") as driver:
        yield driver
    session.close()


@pytest.fixture
def machine(driver: Driver) -> Machine:
    return driver.machine("one")


@pytest.fixture
def told(driver: Driver) -> list[Event]:
    told: list[Event] = []
    driver.session.events.subscribe(told.append)
    return told


class TestDeath:
    def test_it_ends_a_pause(
        self, machine: Machine, told: list[Event], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(waiting, "pause_after", lambda elapsed: 600.0)
        waits = Attempt(lambda: machine.wait_for_file("/nowhere", timeout=None))
        eventually(lambda: any(isinstance(event, WaitStarted) for event in told), "the wait")
        machine.succeed("true")
        machine.node.kill()
        assert isinstance(waits.wait().error, MachineDied)

    def test_of_another_machine_is_that_machines(self, driver: Driver, machine: Machine) -> None:
        """A wait may look at another machine; its death is not this one's."""
        other = driver.machine("two")
        other.connect()
        other.node.kill()
        with pytest.raises(MachineDied, match="two died") as caught:
            machine.wait("anything", lambda _: other.succeed("true") == "", 30)
        assert caught.value.machine == "two"


class TestEvidence:
    def test_what_cannot_be_gathered_does_not_hide_the_timeout(self, machine: Machine) -> None:
        def gather() -> str:
            raise MachineError("no evidence today\nfor some reason")

        with pytest.raises(WaitTimeout, match=r"could not be seen: no evidence today$"):
            machine.wait("anything", lambda _: False, 0, evidence=gather)

    def test_without_any_the_message_is_one_line(self, machine: Machine) -> None:
        with pytest.raises(WaitTimeout) as caught:
            machine.wait("anything", lambda _: False, 0)
        assert "\n" not in str(caught.value)

    def test_a_command_that_shows_nothing_is_named(self, machine: Machine) -> None:
        assert machine.seen_by("exit 3") == "  `exit 3` shows nothing (exit code 3)"


class TestEvents:
    def test_a_wait_that_raises_is_told(self, machine: Machine, told: list[Event]) -> None:
        def look(deadline: Deadline) -> bool:
            raise ZeroDivisionError("no\nway")

        with pytest.raises(ZeroDivisionError):
            machine.wait("anything", look, 30)
        (finished,) = [event for event in told if isinstance(event, WaitFinished)]
        assert (finished.machine, finished.what, finished.error) == ("one", "anything", "no")

    def test_a_wait_that_succeeds_has_no_error(self, machine: Machine, told: list[Event]) -> None:
        machine.wait("anything", lambda _: True, timedelta(seconds=30))
        assert [event.timeout for event in told if isinstance(event, WaitStarted)] == [30.0]
        assert [event.error for event in told if isinstance(event, WaitFinished)] == [""]


class TestRetry:
    def test_it_looks_often_at_first_and_never_less_than_every_second(
        self, driver: Driver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now, pauses = [0.0], []

        def sleep(seconds: float) -> None:
            pauses.append(seconds)
            now[0] += seconds

        monkeypatch.setattr(time, "monotonic", lambda: now[0])
        monkeypatch.setattr(time, "sleep", sleep)
        driver.retry(lambda last_try: last_try, timeout=900)
        assert pauses[0] < 0.05
        assert max(pauses) == 1.0
        assert sum(pauses) == pytest.approx(900)


class TestDeadline:
    def test_a_look_is_given_what_is_left(self) -> None:
        assert Deadline(60).look() == pytest.approx(60, abs=5)

    def test_a_last_look_is_long_enough_to_see(self) -> None:
        assert Deadline(0).look() == waiting.SHORTEST_LOOK

    def test_a_look_without_deadline_has_no_limit(self) -> None:
        assert Deadline(None).look() is None

    @pytest.mark.parametrize("total", [0, 60, None])
    def test_a_look_keeps_its_own_limit(self, total: float | None) -> None:
        assert Deadline(total).look(0.25) == 0.25
