"""The event stream as a file, `events.jsonl`: one event a line, for readers of today and tomorrow.

`docs/events.md` documents the format; `python -m nxc_testing.event_log docs/events.md` brings its
list of types up to date.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import Any

from nxc_testing import events
from nxc_testing.events import Event, MachineEvent, Stream

VERSION = 1
BEGIN, END = "<!-- events: begin -->", "<!-- events: end -->"

TYPES: dict[str, type[Event]] = {
    value.type: value
    for value in vars(events).values()
    if inspect.isclass(value) and issubclass(value, Event) and value not in {Event, MachineEvent}
}
"""What can stand in a file, by the name that it has there."""

FORMS = {
    "str": "text",
    "int": "integer",
    "int | None": "integer or null",
    "float": "number",
    "float | None": "number or null",
    "bool": "boolean",
    "Stream": "`stdout` or `stderr`",
}
"""How the types of fields are written in JSON."""


class EventLog:
    """A reader of the stream that appends every event to a file, a line each.

    Several runs may share the file, as the workers of pytest-xdist do: every line names its run
    and is written at once, at the file's end.

    :param path: the file; made if missing, with mode 0600.
    :param run: the run's id.
    """

    def __init__(self, path: Path, run: str):
        self._run = run
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __call__(self, event: Event) -> None:
        """Append one event."""
        line = json.dumps(to_json(event, self._run), separators=(",", ":")) + "\n"
        os.write(self._fd, line.encode())

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def to_json(event: Event, run: str) -> dict[str, Any]:
    """An event as its line has it."""
    record: dict[str, Any] = {"v": VERSION, "run": run, "type": event.type}
    for item in fields(event):
        value = getattr(event, item.name)
        record[item.name] = value.value if isinstance(value, Enum) else value
    return record


def from_json(record: dict[str, Any]) -> Event | None:
    """The event that a line holds; None if it is of a type that this version does not know."""
    kind = TYPES.get(record["type"])
    if kind is None:
        return None
    known = {item.name: record[item.name] for item in fields(kind) if item.name in record}
    if "stream" in known:
        known["stream"] = Stream(known["stream"])
    return kind(**known)


def read(path: Path, *, run: str | None = None, start: int = 0) -> Iterator[Event]:
    """The events of a file, in the order in which they were written.

    A last line that is not whole, as a full disk or a killed run may leave it, is left out.

    :param run: only this run's.
    :param start: bytes to skip: where the file ended at some moment.
    """
    with path.open("rb") as file:
        file.seek(start)
        for line in file:
            if not line.endswith(b"\n"):
                return
            record = json.loads(line)
            event = from_json(record) if run in {None, record["run"]} else None
            if event is not None:
                yield event


def listing() -> str:
    """A Markdown list of all types, their fields, and what these mean."""
    lines = []
    for name, kind in TYPES.items():
        text = inspect.getdoc(kind) or ""
        meanings = dict(re.findall(r":ivar (\w+): (.*)", text))
        what = text.partition(":ivar")[0].split()
        lines.append(f"- `{name}`: {' '.join(what)}")
        for item in fields(kind):
            if item.name != "time":
                meaning = meanings.get(item.name, "").replace("None", "null")
                form = FORMS[str(item.type)]
                lines.append(f"  - `{item.name}`, {form}" + (f": {meaning}" if meaning else ""))
    return "\n".join(lines)


def with_listing(page: str) -> str:
    """A page with the list of today between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{listing()}\n{END}{after}"


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        file = Path(argument)
        file.write_text(with_listing(file.read_text()))
