"""What a machine's console prints, the test's log, and programs on a terminal."""

from __future__ import annotations

import select
from collections.abc import Callable
from datetime import timedelta

import pexpect
import pytest

from nxc_testing.conformance.target import LENGTHS, PATIENCE, eventually
from nxc_testing.errors import WaitTimeout
from nxc_testing.events import ConsoleOutput, Event, Logged, SectionFinished, SectionStarted
from nxc_testing.machine import Machine


@pytest.fixture
def say(machine: Machine, console: str) -> Callable[[str], None]:
    """Print something on the console of `machine`."""

    def say(text: str) -> None:
        machine.succeed(f"printf '%s\\n' '{text}' >{console}")

    return say


class TestConsole:
    def test_what_it_prints_is_in_its_log(
        self, machine: Machine, say: Callable[[str], None]
    ) -> None:
        say("in the log")
        machine.wait_for_console_text("in the log", PATIENCE)
        assert "in the log\n" in machine.get_console_log()

    def test_what_it_has_printed_is_found(
        self, machine: Machine, say: Callable[[str], None]
    ) -> None:
        say("printed before 123")
        eventually(lambda: "before 123" in machine.get_console_log(), "the console's text")
        machine.wait_for_console_text(r"before \d+", timeout=timedelta(seconds=PATIENCE))

    def test_what_it_prints_later_is_waited_for(self, machine: Machine, console: str) -> None:
        machine.succeed(f"(sleep 0.5; echo printed later >{console}) >/dev/null 2>&1 &")
        machine.wait_for_console_text("printed later")

    def test_what_was_found_is_not_found_again(
        self, machine: Machine, say: Callable[[str], None]
    ) -> None:
        say("only once")
        machine.wait_for_console_text("only once", timeout=PATIENCE)
        with pytest.raises(WaitTimeout):
            machine.wait_for_console_text("only once", timeout=0.2)

    def test_what_was_passed_over_is_still_found(
        self, machine: Machine, say: Callable[[str], None]
    ) -> None:
        say("the first thing")
        say("the second thing")
        with pytest.raises(WaitTimeout):
            machine.wait_for_console_text("the third thing", timeout=0.5)
        machine.wait_for_console_text("the first thing", timeout=PATIENCE)
        machine.wait_for_console_text("the second thing", timeout=PATIENCE)

    def test_a_pattern_spans_lines(self, machine: Machine, say: Callable[[str], None]) -> None:
        say("one line")
        say("another line")
        machine.wait_for_console_text(r"one line\nanother line$", timeout=PATIENCE)

    def test_at_its_deadline_it_shows_the_consoles_end(
        self, machine: Machine, say: Callable[[str], None]
    ) -> None:
        say("the end of it")
        with pytest.raises(WaitTimeout, match=r"console text 'never'(.|\n)*the end"):
            machine.wait_for_console_text("never", timeout=0.5)

    def test_it_is_told_as_it_comes(
        self, machine: Machine, say: Callable[[str], None], events: list[Event]
    ) -> None:
        say("as it comes")

        def told() -> bool:
            texts = [event.text for event in events if isinstance(event, ConsoleOutput)]
            return "as it comes\n" in "".join(texts)

        eventually(told, "the event")

    def test_its_lines_can_be_taken_out(self, machine: Machine, say: Callable[[str], None]) -> None:
        say("taken out")
        machine.wait_for_console_text("taken out", PATIENCE)
        eventually(lambda: _take(machine, "taken out"), "the line")

    def test_a_line_of_the_test_is_as_good_as_one_of_its_own(self, machine: Machine) -> None:
        machine.log_serial("from the test")
        machine.wait_for_console_text("^from the test$", PATIENCE)

    def test_its_log_starts_anew_with_the_machine(self, victim: Machine, console: str) -> None:
        victim.succeed(f"echo before the crash >{console}")
        victim.wait_for_console_text("before the crash", PATIENCE)
        victim.crash()
        victim.start()
        victim.connect()
        assert "before the crash" not in victim.get_console_log()


def _take(machine: Machine, text: str) -> bool:
    while not machine.last_lines.empty():
        if text in machine.last_lines.get():
            return True
    return False


class TestLog:
    def test_a_line_is_told(self, machine: Machine, events: list[Event]) -> None:
        machine.log("what the test thinks")
        (logged,) = [event for event in events if isinstance(event, Logged)]
        assert (logged.machine, logged.message) == ("alpha", "what the test thinks")

    def test_a_nested_part_has_begin_and_end(self, machine: Machine, events: list[Event]) -> None:
        with machine.nested("a part", {"of": "no use"}), machine.nested("of a part"):
            machine.log("inside")
        told = [
            (type(event), event.name)
            for event in events
            if isinstance(event, (SectionStarted, SectionFinished))
        ]
        assert told == [
            (SectionStarted, "alpha: a part"),
            (SectionStarted, "alpha: of a part"),
            (SectionFinished, "alpha: of a part"),
            (SectionFinished, "alpha: a part"),
        ]


class TestInteract:
    def test_a_program_asks_and_is_answered(self, machine: Machine) -> None:
        with machine.interact("read -p 'name? ' name; echo hello $name", PATIENCE) as program:
            program.expect_exact("name? ")
            program.sendline("world")
            program.expect_exact("hello world")

    def test_it_has_a_terminal_of_its_size(self, machine: Machine) -> None:
        with machine.interact("tty; stty size", rows=40, columns=132) as program:
            program.expect(r"/dev/pts/\d+")
            program.expect_exact("40 132")

    def test_control_keys_work(self, machine: Machine) -> None:
        length = next(LENGTHS)
        with machine.interact(f"trap 'echo interrupted' INT; sleep {length}; echo") as program:
            machine.wait_until_succeeds(f"pgrep -xf 'sleep {length}'", PATIENCE)
            program.send("\x03")
            program.expect_exact("interrupted")

    def test_it_ends_with_its_block(self, machine: Machine) -> None:
        length = next(LENGTHS)
        with machine.interact(f"sleep {length}"):
            machine.wait_until_succeeds(f"pgrep -xf 'sleep {length}'", PATIENCE)
        machine.wait_until_fails(f"pgrep -xf 'sleep {length}'", PATIENCE)

    def test_what_is_left_unread_does_no_harm(self, machine: Machine) -> None:
        with machine.interact("echo shown; exec sleep 600") as program:
            ready, _, _ = select.select([program], [], [], PATIENCE)
            assert ready
        assert program.error is None

    def test_commands_go_on_beside_it(self, machine: Machine) -> None:
        with machine.interact("cat") as program:
            assert machine.succeed("echo beside") == "beside\n"
            program.sendline("echoed")
            program.expect_exact("echoed")

    def test_its_end_is_noticed(self, machine: Machine) -> None:
        with machine.interact("echo the end") as program:
            program.expect(pexpect.EOF, timeout=PATIENCE)
            assert "the end" in program.before
