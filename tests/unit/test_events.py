"""Events: one stream, any number of readers, one line of JSON each."""

from __future__ import annotations

import inspect

import pytest

from nxc_testing import events
from nxc_testing.events import (
    Event,
    Events,
    Logged,
    MachineStarted,
)


def all_types() -> list[type[Event]]:
    """Every class of events."""
    classes = (one for one in vars(events).values() if inspect.isclass(one))
    return [one for one in classes if issubclass(one, Event)]


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


def test_the_stream_documents_every_type() -> None:
    assert all((kind.__doc__ or "").strip() for kind in all_types())
    assert events.__doc__
