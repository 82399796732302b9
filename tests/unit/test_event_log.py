"""The event log: a file that keeps the whole stream, and whose format is documented."""

from __future__ import annotations

import json
import os
import stat
import threading
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from nxc_testing.event_log import (
    BEGIN,
    END,
    TYPES,
    VERSION,
    EventLog,
    from_json,
    read,
    to_json,
    with_listing,
)
from nxc_testing.events import CommandOutput, Event, Logged, Stream

PAGE = (Path(__file__).parents[2] / "docs" / "events.md").read_text()


def example(kind: type[Event]) -> Event:
    """An event with something in every field."""
    values: dict[str, Any] = {"str": "text", "int": 7, "bool": True, "float": 1.5}
    values |= {"float | None": None, "int | None": None, "Stream": Stream.STDERR}
    given = {item.name: values[str(item.type)] for item in fields(kind) if item.name != "time"}
    return kind(**given)


def logged(message: str) -> Logged:
    return Logged(machine="n", message=message)


def messages(path: Path, **which: Any) -> list[str]:  # noqa: ANN401
    return [event.message for event in read(path, **which) if isinstance(event, Logged)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def write(path: Path, run: str, *texts: str) -> None:
    log = EventLog(path, run)
    for text in texts:
        log(logged(text))
    log.close()


def test_a_line_has_version_run_type_time_and_fields() -> None:
    event = CommandOutput(machine="n", id=3, stream=Stream.STDOUT, text="\N{SNOWMAN}\n", time=5.0)
    assert to_json(event, "nxc-1") == {
        "v": VERSION,
        "run": "nxc-1",
        "type": "command-output",
        "time": 5.0,
        "machine": "n",
        "id": 3,
        "stream": "stdout",
        "text": "\N{SNOWMAN}\n",
        "late": False,
    }


@pytest.mark.parametrize("kind", TYPES.values(), ids=lambda kind: kind.type)
def test_every_event_is_read_as_it_was_written(kind: type[Event]) -> None:
    event = example(kind)
    assert from_json(json.loads(json.dumps(to_json(event, "text")))) == event


def test_each_event_is_a_line(path: Path) -> None:
    write(path, "nxc-1", "one\ntwo", "three")
    assert [json.loads(line)["message"] for line in path.read_text().splitlines()] == [
        "one\ntwo",
        "three",
    ]


def test_the_file_is_private(path: Path) -> None:
    EventLog(path, "nxc-1").close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_it_goes_on_where_the_file_ends(path: Path) -> None:
    write(path, "nxc-1", "one")
    write(path, "nxc-1", "two")
    assert messages(path) == ["one", "two"]


def test_writers_do_not_mix_their_lines(path: Path) -> None:
    """Several processes may share the file; here threads with descriptors of their own."""
    text = "x" * 5000
    threads = [threading.Thread(target=write, args=(path, "nxc-1", *[text] * 50)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert messages(path) == [text] * 200


def test_one_run_can_be_read_out_of_several(path: Path) -> None:
    write(path, "nxc-1", "one")
    write(path, "nxc-2", "two")
    assert messages(path, run="nxc-2") == ["two"]


def test_it_can_be_read_from_a_moment_on(path: Path) -> None:
    write(path, "nxc-1", "one")
    size = path.stat().st_size
    write(path, "nxc-1", "two")
    assert messages(path, start=size) == ["two"]


def test_a_line_that_was_cut_is_left_out(path: Path) -> None:
    write(path, "nxc-1", "one", "two")
    path.write_bytes(path.read_bytes()[:-5])
    assert messages(path) == ["one"]


def test_types_and_fields_of_later_versions_are_passed_over(path: Path) -> None:
    later = to_json(logged("one"), "nxc-1") | {"weather": "fine"}
    unknown = {"v": VERSION, "run": "nxc-1", "type": "eclipse", "time": 1.0}
    path.write_text(f"{json.dumps(unknown)}\n{json.dumps(later)}\n")
    assert messages(path) == ["one"]


def test_the_descriptor_is_not_inherited(path: Path) -> None:
    log = EventLog(path, "nxc-1")
    links = {int(fd.name): fd for fd in Path("/proc/self/fd").iterdir()}
    (own,) = [number for number, fd in links.items() if fd.resolve() == path]
    assert not os.get_inheritable(own)
    log.close()


def test_the_documentation_lists_every_type() -> None:
    assert PAGE.count(BEGIN) == PAGE.count(END) == 1
    assert with_listing(PAGE) == PAGE, "run: python -m nxc_testing.event_log docs/events.md"


def test_the_documentation_tells_the_version() -> None:
    assert f"the version of the format: {VERSION} " in PAGE
