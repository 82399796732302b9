"""What a person is shown of an event."""

from __future__ import annotations

import pytest

from nxc_testing.events import CommandOutput
from nxc_testing.transcript import lines, plain


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        ("a line\n\tand another, of żółw\n", "a line\n\tand another, of żółw\n"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;a title\x07shown", "shown"),
        ("\x1b(Bshown\x1b7", "shown"),
        ("\x1b[2J\x1b[Hgone", "gone"),
        ("10 %\r50 %\rdone\n", "done\n"),
        ("a line of Windows\r\n", "a line of Windows\n"),
        ("a bell\x07 and a NUL\x00", "a bell and a NUL"),
        ("what ends with a return\r", "what ends with a return"),
        (
            "before\n[*  ] waiting\n\x1bM\r\x1b[K[ * ] waiting\n\x1bM\r\x1b[K[ OK ] there\n",
            "before\n[ OK ] there\n",
        ),
    ],
)
def test_a_text_is_shown_without_what_moves_the_cursor(printed: str, shown: str) -> None:
    assert plain(printed) == shown


def test_each_line_is_said_to_be_its_machines() -> None:
    event = CommandOutput(machine="alpha", id=1, stream="stdout", text="one\r\n\x1b[1mtwo")
    assert lines(event) == ["alpha: one", "alpha: two"]
