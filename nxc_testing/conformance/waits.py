"""Waits: they end when what they wait for comes, at their deadline, or when the machine dies."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

import pytest

from nxc_testing.conformance.target import Attempt
from nxc_testing.errors import RequestedAssertionFailed, WaitTimeout
from nxc_testing.events import CommandStarted, Event, WaitFinished, WaitStarted
from nxc_testing.machine import Machine


class TestWaitUntil:
    def test_it_gives_the_output_of_the_attempt_that_succeeded(
        self, machine: Machine, scratch: str
    ) -> None:
        command = f"echo x >>{scratch}/tries; wc -l <{scratch}/tries; test -s {scratch}/done"
        first = f"until test -s {scratch}/tries; do sleep 0.1; done"
        machine.succeed(f"({first}; sleep 1; echo >{scratch}/done) >/dev/null 2>&1 &")
        output = machine.wait_until_succeeds(command, timeout=30)
        assert int(output) > 1

    def test_it_waits_until_something_fails(self, machine: Machine, scratch: str) -> None:
        machine.succeed(f"touch {scratch}/there")
        machine.succeed(f"(sleep 0.3; rm {scratch}/there) >/dev/null 2>&1 &")
        assert machine.wait_until_fails(f"echo seen; test -e {scratch}/there", 30) == "seen\n"

    @pytest.mark.parametrize(
        "wait",
        [
            lambda machine: machine.wait_until_succeeds("echo no; echo why >&2; exit 5", 0.3),
            lambda machine: machine.wait_until_succeeds(
                "echo no; echo why >&2; exit 5", timeout=timedelta(seconds=0.3)
            ),
        ],
    )
    def test_at_its_deadline_it_shows_the_last_attempt(
        self, machine: Machine, wait: Callable[[Machine], str]
    ) -> None:
        with pytest.raises(WaitTimeout, match=r"alpha: timed out after 0\.\d s") as caught:
            wait(machine)
        text = str(caught.value)
        assert "last exit code 5" in text
        assert "stdout:\n    no" in text
        assert "stderr:\n    why" in text

    def test_what_succeeds_although_it_should_not_is_shown_too(self, machine: Machine) -> None:
        with pytest.raises(WaitTimeout, match="to fail\n  last exit code 0"):
            machine.wait_until_fails("true", timeout=0.2)

    def test_its_error_is_the_one_scripts_catch(self, machine: Machine) -> None:
        with pytest.raises(RequestedAssertionFailed):
            machine.wait_until_succeeds("false", timeout=0)

    def test_it_looks_at_least_once(self, machine: Machine) -> None:
        assert machine.wait_until_succeeds("echo once", timeout=0) == "once\n"

    def test_its_deadline_bounds_an_attempt_that_hangs(self, machine: Machine) -> None:
        began = time.monotonic()
        with pytest.raises(WaitTimeout, match="ended after"):
            machine.wait_until_succeeds("sleep 1000", timeout=1)
        assert time.monotonic() - began < 15

    def test_an_attempt_has_a_limit_of_its_own(self, machine: Machine, scratch: str) -> None:
        command = f"test -e {scratch}/tried || {{ touch {scratch}/tried; sleep 1000; }}"
        began = time.monotonic()
        machine.wait_until_succeeds(command, timeout=60, attempt_timeout=0.3)
        assert time.monotonic() - began < 30

    def test_its_attempts_are_one_wait_in_the_log(
        self, machine: Machine, events: list[Event]
    ) -> None:
        with pytest.raises(WaitTimeout):
            machine.wait_until_succeeds("false", timeout=0.2)
        assert not [event for event in events if isinstance(event, CommandStarted)]
        (started,) = [event for event in events if isinstance(event, WaitStarted)]
        (finished,) = [event for event in events if isinstance(event, WaitFinished)]
        assert (started.what, started.timeout) == ("`false` to succeed", 0.2)
        assert finished.what == started.what
        assert "timed out" in finished.error


class TestWaitForFile:
    def test_it_waits_for_a_file(self, machine: Machine, scratch: str) -> None:
        machine.succeed(f"(sleep 0.3; touch {scratch}/file) >/dev/null 2>&1 &")
        machine.wait_for_file(f"{scratch}/file")
        machine.succeed(f"test -e {scratch}/file")

    def test_its_name_is_a_pattern(self, machine: Machine, scratch: str) -> None:
        machine.succeed(f"touch {scratch}/file-1234")
        machine.wait_for_file(f"{scratch}/file-*4", 30)

    def test_at_its_deadline_it_shows_what_is_in_the_directory(
        self, machine: Machine, scratch: str
    ) -> None:
        machine.succeed(f"touch {scratch}/another")
        with pytest.raises(WaitTimeout, match="another"):
            machine.wait_for_file(f"{scratch}/file", timeout=timedelta(seconds=0.2))

    def test_without_its_directory_it_says_so(self, machine: Machine, scratch: str) -> None:
        with pytest.raises(WaitTimeout, match="No such file or directory"):
            machine.wait_for_file(f"{scratch}/none/file", timeout=0)


class TestCallbacks:
    def test_they_are_called_before_every_command(self, machine: Machine) -> None:
        called: list[str] = []
        machine.callbacks.append(lambda: called.append("now"))
        try:
            machine.succeed("true", "true")
            machine.execute("false")
        finally:
            machine.callbacks.pop()
        assert len(called) == 3

    def test_they_are_called_before_every_look_of_a_wait(
        self, machine: Machine, scratch: str
    ) -> None:
        looks: list[str] = []
        machine.callbacks.append(lambda: looks.append("now"))
        try:
            with pytest.raises(WaitTimeout):
                machine.wait_for_file(f"{scratch}/none", timeout=0.3)
        finally:
            machine.callbacks.pop()
        assert len(looks) > 1

    def test_what_one_raises_ends_the_command(self, machine: Machine, scratch: str) -> None:
        def refuse() -> None:
            raise LookupError("not now")

        machine.callbacks.append(refuse)
        try:
            with pytest.raises(LookupError, match="not now"):
                machine.succeed(f"touch {scratch}/file")
        finally:
            machine.callbacks.pop()
        machine.fail(f"test -e {scratch}/file")

    def test_commands_of_a_callback_call_none(self, machine: Machine) -> None:
        called: list[str] = []
        machine.callbacks.append(lambda: called.append(machine.succeed("echo inner")))
        try:
            assert machine.succeed("echo outer") == "outer\n"
        finally:
            machine.callbacks.pop()
        assert called == ["inner\n"]

    def test_they_are_called_in_every_thread(self, machine: Machine, scratch: str) -> None:
        """While one of them takes its time in one thread, another thread has its own."""
        called: list[str] = []

        def slow() -> None:
            called.append("now")
            if len(called) == 1:
                other = Attempt(lambda: machine.succeed("true")).wait()
                assert other.error is None

        machine.callbacks.append(slow)
        try:
            machine.succeed("true")
        finally:
            machine.callbacks.pop()
        assert len(called) == 2
