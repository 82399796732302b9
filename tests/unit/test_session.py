"""A session: one run's identity, directory, events and end."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from nxc_testing.errors import LockTimeout
from nxc_testing.events import Event, Progress, RunFinished
from nxc_testing.session import LABEL_OWNER, LABEL_RUN, Session


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    session = Session(tmp_path)
    yield session
    session.close()


def test_two_sessions_have_nothing_in_common(session: Session, tmp_path: Path) -> None:
    other = Session(tmp_path)
    assert session.id != other.id
    assert session.directory != other.directory
    other.close()
    assert session.directory.is_dir()


def test_its_directory_is_private(session: Session) -> None:
    assert stat.S_IMODE(session.directory.stat().st_mode) == 0o700


def test_its_end_takes_its_directory_away(session: Session) -> None:
    (session.directory / "some" / "thing").mkdir(parents=True)
    session.close()
    assert not session.directory.exists()


def test_it_can_end_twice(session: Session) -> None:
    ended: list[Event] = []
    session.events.subscribe(ended.append)
    session.close()
    session.close()
    assert [type(event) for event in ended] == [RunFinished]


def test_its_labels_say_whose_it_is(session: Session) -> None:
    assert session.labels == {LABEL_RUN: session.id, LABEL_OWNER: str(session.owner)}


def test_it_counts_by_kind(session: Session) -> None:
    assert [session.number("a"), session.number("a"), session.number("b")] == [1, 2, 1]


def test_its_events_are_written_as_they_come(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with closing(Session(tmp_path, event_log=path)) as session:
        session.progress("image oar", "unpacking")
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert [line["type"] for line in lines] == ["run-started", "progress"]
        assert {line["run"] for line in lines} == {session.id}


def test_an_event_log_that_cannot_be_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError):
        Session(tmp_path, event_log=Path("/dev/null/events.jsonl"))
    assert not list(tmp_path.glob("runs/*"))


def test_what_is_released_at_the_end_goes_in_reverse_order(session: Session) -> None:
    released: list[str] = []
    session.on_close(lambda: released.append("first made"))
    session.on_close(lambda: released.append("last made"))
    session.close()
    assert released == ["last made", "first made"]


def test_what_fails_to_be_released_keeps_nothing_else_from_it(session: Session) -> None:
    released: list[str] = []

    def fail() -> None:
        raise ZeroDivisionError("not released")

    session.on_close(lambda: released.append("released"))
    session.on_close(fail)
    with pytest.raises(ZeroDivisionError):
        session.close()
    assert released == ["released"]
    assert not session.directory.exists()


def test_a_lock_is_waited_for_and_its_holder_named(session: Session, tmp_path: Path) -> None:
    other, told = Session(tmp_path), list[Event]()
    name = f"test-{session.id}"
    other.events.subscribe(told.append)
    with (
        session.lock(name),
        pytest.raises(LockTimeout, match=session.id),
        other.lock(name, timeout=0.1),
    ):
        pass
    (progress,) = [event for event in told if isinstance(event, Progress)]
    assert session.id in progress.message
    with other.lock(name, timeout=0):
        pass
    other.close()
