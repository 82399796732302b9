"""A machine's console: kept whole, and waited for without losing anything."""

from __future__ import annotations

import re
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nxc_testing.console import Console
from nxc_testing.waiting import Deadline

PATIENCE = 30.0


class Recorded(Console):
    def __init__(self) -> None:
        self.emitted: list[str] = []
        super().__init__(self.emitted.append)


@pytest.fixture
def console() -> Recorded:
    return Recorded()


def find(console: Console, pattern: str, timeout: float | None = 0) -> str | None:
    match = console.wait(re.compile(pattern, re.MULTILINE), Deadline(timeout), lambda: False)
    return match[0] if match else None


class TestText:
    @given(st.lists(st.sampled_from(["a", "\n", "\r\n", "é", "€", "line", "\r"])), st.data())
    def test_it_is_whole_however_it_comes(self, parts: list[str], data: st.DataObject) -> None:
        console = Recorded()
        said = "".join(parts)
        sent = said.encode()
        while sent:
            size = data.draw(st.integers(1, len(sent)))
            console.feed(sent[:size])
            sent = sent[size:]
        console.new_boot()
        shown = said.replace("\r\n", "\n")
        ended = shown if not shown or shown.endswith("\n") else shown + "\n"
        assert "".join(console.emitted) == ended

    def test_lines_end_with_a_newline(self, console: Recorded) -> None:
        console.feed(b"one\r")
        console.feed(b"\ntwo\r\n")
        assert console.text == "one\ntwo\n"

    def test_a_carriage_return_alone_stays(self, console: Recorded) -> None:
        console.feed(b"10%\r20%\r")
        console.feed(b"done\n")
        assert console.text == "10%\r20%\rdone\n"

    def test_what_is_not_utf8_is_replaced(self, console: Recorded) -> None:
        console.feed(b"\xff \xe2\x82")
        console.feed(b"\xac\n")
        assert console.text == "\ufffd \N{EURO SIGN}\n"

    def test_a_prompt_is_there_at_once(self, console: Recorded) -> None:
        console.feed(b"login: ")
        assert console.text == "login: "

    def test_lines_are_emitted_whole(self, console: Recorded) -> None:
        for piece in (b"on", b"e\nt", b"wo", b"\nthree\nfour"):
            console.feed(piece)
        assert console.emitted == ["one\n", "two\nthree\n"]


class TestBoots:
    def test_each_boot_has_its_text(self, console: Recorded) -> None:
        console.feed(b"first\n")
        console.new_boot()
        assert console.text == ""
        console.feed(b"second\n")
        assert console.text == "second\n"

    def test_a_line_that_the_old_boot_did_not_end_is_its_own(self, console: Recorded) -> None:
        console.feed(b"cut \xe2")
        console.new_boot()
        console.feed(b"\xacnew\n")
        assert console.emitted == ["cut \ufffd\n", "\ufffdnew\n"]
        assert console.text == "\ufffdnew\n"

    def test_the_end_of_the_old_boot_can_still_be_waited_for(self, console: Recorded) -> None:
        console.feed(b"Powering off.\n")
        console.new_boot()
        assert find(console, "Powering off") == "Powering off"


class TestWaiting:
    def test_what_was_said_before_is_found(self, console: Recorded) -> None:
        console.feed(b"ready\n")
        assert find(console, "ready") == "ready"

    def test_a_match_is_found_once(self, console: Recorded) -> None:
        console.feed(b"ready\n")
        find(console, "ready")
        assert find(console, "ready") is None
        console.feed(b"ready again\n")
        assert find(console, "ready") == "ready"

    def test_nothing_behind_a_match_is_lost(self, console: Recorded) -> None:
        console.feed(b"one two three\n")
        assert find(console, "one") == "one"
        assert find(console, "two") == "two"
        assert find(console, "nothing") is None
        assert find(console, "three") == "three"

    def test_what_an_unsuccessful_wait_read_is_not_lost(self, console: Recorded) -> None:
        console.feed(b"one\n")
        assert find(console, "other") is None
        assert find(console, "one") == "one"

    def test_a_match_may_span_lines_and_pieces(self, console: Recorded) -> None:
        console.feed(b"panic: on")
        console.feed(b"e\r\nstack:\r\n f")
        console.feed(b"oo\n")
        assert find(console, r"panic: one\nstack:\n foo") == "panic: one\nstack:\n foo"

    def test_anchors_match_at_each_line(self, console: Recorded) -> None:
        console.feed(b"a login: \nlogin: \n")
        assert find(console, "^login: $") == "login: "

    def test_it_waits(self, console: Recorded) -> None:
        timer = threading.Timer(0.1, console.feed, [b"at last\n"])
        timer.start()
        assert find(console, "at last", PATIENCE) == "at last"

    def test_several_wait_at_once(self, console: Recorded) -> None:
        found: list[str | None] = []
        threads = [
            threading.Thread(target=lambda n=n: found.append(find(console, f"line {n}$", PATIENCE)))
            for n in range(5)
        ]
        for thread in threads:
            thread.start()
        # Matches behind one another are each found, as each wait has its own pattern.
        for n in range(5):
            console.feed(f"line {n}\n".encode())
            threads[n].join(PATIENCE)
        assert found == [f"line {n}" for n in range(5)]

    def test_an_interruption_ends_it(self, console: Recorded) -> None:
        over = threading.Event()
        found: list[re.Match[str] | None] = []
        waits = threading.Thread(
            target=lambda: found.append(
                console.wait(re.compile("never"), Deadline(None), over.is_set)
            )
        )
        waits.start()
        over.set()
        console.wake()
        waits.join(PATIENCE)
        assert found == [None]

    def test_what_is_said_last_is_seen(self, console: Recorded) -> None:
        """The machine died with these words, and both are told."""
        console.feed(b"last words\n")
        found = console.wait(re.compile("last words"), Deadline(10), lambda: True)
        assert found

    def test_a_flood_costs_no_square(self, console: Recorded) -> None:
        for _ in range(50_000):
            console.feed(b"a line of a kernel that has much to say to whoever reads it\n")
        assert console.text.count("\n") == 50_000
