"""Events as lines for a person, on the terminal, at a prompt and in a file."""

from __future__ import annotations

import re
from enum import IntEnum

from nxc_testing.events import (
    CommandFinished,
    CommandOutput,
    CommandStarted,
    ConsoleOutput,
    Event,
    FaultChanged,
    Logged,
    MachineEnded,
    MachineStarted,
    Progress,
    SectionStarted,
    WaitFinished,
    WaitStarted,
)

_SEQUENCE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[ -/]*[0-~])")
"""An escape sequence of ECMA-48; the second kind sets a window's title."""

_REDRAWN = re.compile(r"[^\n]*\n\x1bM\r")
"""A line that the next one goes back to and writes anew: how systemd shows that it still waits."""

_OVERWRITTEN = re.compile(r"[^\n\r]*\r(?!\n|$)")
_UNSHOWN = re.compile(r"[^\t\n -~\x80-\U0010ffff]|[\x80-\x9f]")


class Detail(IntEnum):
    """How much a person must want to know to be shown an event."""

    PROGRESS = 0
    COMMANDS = 1
    OUTPUTS = 2
    EVERYTHING = 3


def lines(event: Event) -> list[str]:
    """What is shown of an event, with the machine's name before each line."""
    who = getattr(event, "machine", "")
    text = plain(_described(event)[1])
    return [f"{who}: {line}" if who else line for line in text.splitlines()]


def plain(text: str) -> str:
    """A text as it stands on a terminal in the end: nothing in it moves a cursor or sets colours.

    What a machine prints must not rub out what else is on a person's terminal.
    """
    text = _REDRAWN.sub("", text).replace("\r\n", "\n")
    return _UNSHOWN.sub("", _OVERWRITTEN.sub("", _SEQUENCE.sub("", text)))


def detail(event: Event) -> Detail:
    """Who is shown an event."""
    return _described(event)[0]


def _described(event: Event) -> tuple[Detail, str]:
    match event:
        case Progress():
            return Detail.PROGRESS, f"{event.topic}: {event.message}"
        case CommandStarted():
            return Detail.COMMANDS, f"$ {event.command}"
        case CommandFinished():
            level = Detail.EVERYTHING if event.status == 0 else Detail.COMMANDS
            end = event.error or f"exit code {event.status}"
            return level, f"{end} after {event.duration:.2f} s"
        case WaitStarted():
            return Detail.COMMANDS, f"waiting for {event.what}"
        case WaitFinished():
            how = event.error or f"waited {event.duration:.2f} s for {event.what}"
            return (Detail.EVERYTHING if event.error else Detail.COMMANDS), how
        case MachineStarted():
            return Detail.COMMANDS, f"started (boot {event.boot})"
        case MachineEnded():
            return Detail.COMMANDS, f"ended: {event.reason}"
        case FaultChanged():
            return Detail.COMMANDS, f"fault{'' if event.active else ' over'}: {event.fault}"
        case SectionStarted():
            return Detail.COMMANDS, f"{event.kind}: {event.name}"
        case Logged():
            return Detail.COMMANDS, event.message
        case CommandOutput():
            return Detail.OUTPUTS, event.text
        case ConsoleOutput():
            return Detail.EVERYTHING, event.text
    return Detail.EVERYTHING, ""
