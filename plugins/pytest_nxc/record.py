"""Keeps what the machines did during the running test, for the test's report."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field

from nxc_testing.errors import tail
from nxc_testing.events import (
    CommandFinished,
    CommandOutput,
    CommandStarted,
    Event,
    FaultChanged,
    MachineEnded,
    MachineStarted,
    Stream,
    WaitFinished,
)

ENTRIES = 30
OUTPUT_LINES = 10
OUTPUT_CHARACTERS = 2000
COMMAND_CHARACTERS = 1000


@dataclass(slots=True)
class Entry:
    """Something that a machine did; a command that was repeated at once is one entry."""

    machine: str
    what: str
    id: int | None = None
    times: int = 1
    end: str = ""
    output: dict[Stream, str] = field(default_factory=dict)

    def text(self) -> str:
        """As it stands in the report."""
        times = f" ({self.times} times; the last:)" if self.times > 1 else ""
        what = self.what.rstrip()
        if len(what) > COMMAND_CHARACTERS:
            what = f"{what[:COMMAND_CHARACTERS]} ... ({len(what)} characters)"
        end = f"\n  {self.end}" if self.end else ""
        outputs = (
            tail(stream.value, self.output.get(stream, ""), OUTPUT_LINES) for stream in Stream
        )
        return f"{self.machine}: {what}{times}{end}{''.join(outputs)}"


class Record:
    """A reader of the event stream that holds the last things of the running test."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: deque[Entry] = deque(maxlen=ENTRIES)
        self._earlier = 0

    def clear(self) -> None:
        """Forget everything: a test begins."""
        with self._lock:
            self._entries.clear()
            self._earlier = 0

    def text(self) -> str:
        """The last things, oldest first; empty if there were none."""
        with self._lock:
            lines = [entry.text() for entry in self._entries]
            if self._earlier:
                lines.insert(0, f"({self._earlier} earlier ones are left out)")
        return "\n".join(lines)

    def take(self, event: Event) -> None:
        """Take in an event."""
        with self._lock:
            match event:
                case CommandStarted():
                    self._start(event)
                case CommandOutput():
                    if entry := self._find(event.machine, event.id):
                        text = entry.output.get(event.stream, "") + event.text
                        entry.output[event.stream] = text[-OUTPUT_CHARACTERS:]
                case CommandFinished():
                    if entry := self._find(event.machine, event.id):
                        end = event.error or f"exit code {event.status}"
                        entry.end = f"{end} after {event.duration:.2f} s"
                case WaitFinished():
                    end = f"after {event.duration:.2f} s"
                    end = f"{event.error} {end}" if event.error else end
                    self._add(Entry(event.machine or "-", f"waited for {event.what}", end=end))
                case MachineStarted():
                    self._add(Entry(event.machine, f"started (boot {event.boot})"))
                case MachineEnded():
                    self._add(Entry(event.machine, f"ended: {event.reason}"))
                case FaultChanged():
                    change = "fault" if event.active else "fault over"
                    self._add(Entry(event.machine, f"{change}: {event.fault}"))

    def _start(self, event: CommandStarted) -> None:
        what = f"$ {event.command}"
        last = self._entries[-1] if self._entries else None
        if last and last.end and (last.machine, last.what) == (event.machine, what):
            last.id, last.end, last.output = event.id, "", {}
            last.times += 1
        else:
            self._add(Entry(event.machine, what, event.id))

    def _add(self, entry: Entry) -> None:
        if len(self._entries) == ENTRIES:
            self._earlier += 1
        self._entries.append(entry)

    def _find(self, machine: str, number: int) -> Entry | None:
        for entry in reversed(self._entries):
            if entry.id == number and entry.machine == machine:
                return entry
        return None
