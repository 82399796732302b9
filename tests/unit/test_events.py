"""Events: one stream, any number of readers, one line of JSON each."""

from __future__ import annotations

import inspect
import json
import os
import stat
import threading
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from nxc_testing import events
from nxc_testing.events import (
    VERSION,
    CommandOutput,
    Event,
    Events,
    JsonLines,
    Logged,
    MachineStarted,
    Stream,
    to_json,
)


def all_types() -> list[type[Event]]:
    """Every class of events."""
    classes = (one for one in vars(events).values() if inspect.isclass(one))
    return [one for one in classes if issubclass(one, Event)]


def example(kind: type[Event]) -> Event:
    """An event with something in every field."""
    values: dict[str, Any] = {"str": "text", "int": 7, "bool": True, "float": 1.5}
    values |= {"float | None": None, "int | None": None, "Stream": Stream.STDERR}
    given = {item.name: values[str(item.type)] for item in fields(kind) if item.name != "time"}
    return kind(**given)


def logged(message: str) -> Logged:
    return Logged(machine="n", message=message)


def test_a_reader_sees_events_in_order() -> None:
    stream, seen = Events(), list[Event]()
    stream.subscribe(seen.append)
    sent = [logged("one"), logged("two")]
    for event in sent:
        stream.emit(event)
    assert seen == sent


def test_every_reader_sees_all() -> None:
    stream, one, two = Events(), list[Event](), list[Event]()
    stream.subscribe(one.append)
    stream.subscribe(two.append)
    stream.emit(logged("x"))
    assert len(one) == len(two) == 1


def test_who_has_left_sees_nothing() -> None:
    stream, seen = Events(), list[Event]()
    leave = stream.subscribe(seen.append)
    leave()
    stream.emit(logged("x"))
    assert seen == []


def test_a_broken_reader_breaks_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def broken(event: Event) -> None:
        raise ZeroDivisionError(event.type)

    stream, seen = Events(), list[Event]()
    stream.subscribe(broken)
    stream.subscribe(seen.append)
    stream.emit(logged("x"))
    assert len(seen) == 1
    assert "an event reader failed on logged" in caplog.text


def test_an_event_knows_when_it_was() -> None:
    assert logged("x").time == pytest.approx(logged("y").time, abs=60)


def test_types_are_named_after_their_classes() -> None:
    assert MachineStarted.type == "machine-started"
    assert len(all_types()) > 15
    assert len({kind.type for kind in all_types()}) == len(all_types())


def test_a_line_has_version_type_time_and_fields() -> None:
    event = CommandOutput(machine="n", id=3, stream=Stream.STDOUT, text="\N{SNOWMAN}\n", time=5.0)
    assert to_json(event) == {
        "v": VERSION,
        "type": "command-output",
        "time": 5.0,
        "machine": "n",
        "id": 3,
        "stream": "stdout",
        "text": "\N{SNOWMAN}\n",
        "late": False,
    }


@pytest.mark.parametrize("kind", all_types(), ids=lambda kind: kind.type)
def test_every_event_can_be_written(kind: type[Event]) -> None:
    event = example(kind)
    record = json.loads(json.dumps(to_json(event)))
    assert set(record) == {"v", "type", *(item.name for item in fields(kind))}


class TestJsonLines:
    def test_each_event_is_a_line(self, tmp_path: Path) -> None:
        lines = JsonLines(tmp_path / "events.jsonl")
        lines(logged("one\ntwo"))
        lines(logged("three"))
        lines.close()
        written = (tmp_path / "events.jsonl").read_text().splitlines()
        assert [json.loads(line)["message"] for line in written] == ["one\ntwo", "three"]

    def test_the_file_is_private(self, tmp_path: Path) -> None:
        JsonLines(tmp_path / "events.jsonl").close()
        assert stat.S_IMODE((tmp_path / "events.jsonl").stat().st_mode) == 0o600

    def test_it_goes_on_where_the_file_ends(self, tmp_path: Path) -> None:
        for message in ("one", "two"):
            lines = JsonLines(tmp_path / "events.jsonl")
            lines(logged(message))
            lines.close()
        assert len((tmp_path / "events.jsonl").read_text().splitlines()) == 2

    def test_writers_do_not_mix_their_lines(self, tmp_path: Path) -> None:
        """Several processes may share the file; here threads with descriptors of their own."""
        text = "x" * 5000

        def write() -> None:
            lines = JsonLines(tmp_path / "events.jsonl")
            for _ in range(50):
                lines(logged(text))
            lines.close()

        threads = [threading.Thread(target=write) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        written = (tmp_path / "events.jsonl").read_text().splitlines()
        assert [json.loads(line)["message"] for line in written] == [text] * 200

    def test_the_descriptor_is_not_inherited(self, tmp_path: Path) -> None:
        path = tmp_path / "events.jsonl"
        lines = JsonLines(path)
        links = {int(fd.name): fd for fd in Path("/proc/self/fd").iterdir()}
        (own,) = [number for number, fd in links.items() if fd.resolve() == path]
        assert not os.get_inheritable(own)
        lines.close()


def test_the_stream_documents_every_type() -> None:
    assert all((kind.__doc__ or "").strip() for kind in all_types())
    assert events.__doc__
