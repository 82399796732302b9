"""A session's directory, its journal and its reaper, from its beginning to its end."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from nxc_testing import backends
from nxc_testing.backends.base import Backend, Reaps
from nxc_testing.backends.fake import FakeBackend
from nxc_testing.errors import DeploymentError, InfraError
from nxc_testing.events import Event, Progress
from nxc_testing.runs import guard, leftovers, reaper
from nxc_testing.runs.journal import Journal, Record
from nxc_testing.runs.owner import Owner
from nxc_testing.session import LABEL_KEPT, LABEL_OWNER, LABEL_RUN, Session


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    session = Session(tmp_path)
    yield session
    session.close()


def reaper_of(session: Session) -> psutil.Process:
    (found,) = [
        process
        for process in psutil.process_iter(["cmdline"])
        if session.id in (process.info["cmdline"] or ())
        and process.status() != psutil.STATUS_ZOMBIE
    ]
    return found


def until(what: Callable[[], object], timeout: float = 20) -> None:
    give_up = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


class TestDirectory:
    def test_it_is_open_to_nobody_else(self, session: Session) -> None:
        for path in (session.directory, session.directory.parent):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700

    def test_it_goes_with_the_session(self, session: Session) -> None:
        session.close()
        assert not session.directory.exists()

    def test_it_says_whose_it_is(self, session: Session) -> None:
        text = (session.directory / leftovers.OWNER).read_text()
        assert Owner.parse(text) == Owner.of()


class TestLabels:
    def test_they_tell_the_run_and_its_owner(self, session: Session) -> None:
        assert session.labels == {LABEL_RUN: session.id, LABEL_OWNER: str(Owner.of())}

    def test_from_keep_on_they_tell_that_the_run_is_kept(self, session: Session) -> None:
        session.keep()
        assert LABEL_KEPT in session.labels


class TestJournal:
    def test_what_is_recorded_can_be_read_by_others(self, session: Session) -> None:
        record = session.record("fake", "x", composition="oar", machines=["a", "b"])
        assert Journal(session.directory).records() == [Record("fake", "x", "oar", ["a", "b"])]
        session.forget(record)

    def test_what_is_forgotten_is_not(self, session: Session) -> None:
        first, second = session.record("fake", "x"), session.record("fake", "y")
        session.forget(first)
        assert [record.identifier for record in Journal(session.directory).records()] == ["y"]
        session.forget(second)

    def test_a_line_that_was_cut_off_is_passed_over(self, session: Session) -> None:
        record = session.record("fake", "x")
        with (session.directory / "resources.jsonl").open("a") as file:
            file.write('{"made": {"backend": "fa\n["made"]\n3\n{"made": {"other": 1}}\n')
        assert len(Journal(session.directory).records()) == 1
        session.forget(record)


class TestReaper:
    def test_it_is_nobodys_child_and_in_no_session_of_ours(self, session: Session) -> None:
        process = reaper_of(session)
        until(lambda: process.ppid() != os.getpid())
        assert os.getsid(process.pid) != os.getsid(0)
        assert process not in psutil.Process().children(recursive=True)

    def test_it_ends_with_the_session(self, session: Session) -> None:
        process = reaper_of(session)
        session.close()
        until(lambda: ended(process))

    def test_it_waits_without_work(self, session: Session) -> None:
        record = session.record("fake", "x")
        process = reaper_of(session)
        before = process.cpu_times().user
        time.sleep(0.5)
        assert process.cpu_times().user == before
        session.forget(record)

    def test_it_imports_nothing_that_costs_before_it_works(self, session: Session) -> None:
        session.forget(session.record("fake", "x"))
        maps = Path(f"/proc/{reaper_of(session).pid}/maps").read_text()
        assert "psutil" not in maps
        assert "_ssl" not in maps

    def test_one_that_was_killed_is_replaced_before_something_is_made(
        self, session: Session
    ) -> None:
        session.forget(session.record("fake", "x"))
        first = reaper_of(session)
        first.kill()
        until(lambda: ended(first))
        session.forget(session.record("fake", "y"))
        assert reaper_of(session) != first

    def test_without_one_nothing_may_be_made(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(guard, "COMMAND", ("/bin/false",))
        session = Session(tmp_path)
        with pytest.raises(InfraError, match="its reaper does not come up: try `/bin/false`"):
            session.record("fake", "x")
        session.close()

    def test_it_releases_what_the_run_could_not(self, tmp_path: Path) -> None:
        session = Session(tmp_path)
        session.record("fake", "what nobody forgets")
        session.close()
        assert not session.directory.exists()

    def test_what_it_cannot_release_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(guard, "WORK_TIMEOUT", 0.5)
        session = Session(tmp_path)
        process = reaper_of(session)
        session.record("no such backend", "x")
        with pytest.raises(InfraError, match="not everything of backend no such backend"):
            session.close()
        assert session.directory.exists()
        process.kill()

    def test_it_stays_away_from_a_kept_run(self, tmp_path: Path) -> None:
        session = Session(tmp_path)
        process = reaper_of(session)
        session.keep()
        session.record("fake", "x")
        until(lambda: ended(process))
        session.close()
        assert (session.directory / leftovers.KEPT).exists()

    def test_a_kept_run_that_has_nothing_goes(self, session: Session) -> None:
        session.keep()
        session.forget(session.record("fake", "x"))
        session.close()
        assert not session.directory.exists()


class TestSweeps:
    """The reaper's own loop, with a clock that it sets itself."""

    def sweeps(
        self, monkeypatch: pytest.MonkeyPatch, *outcomes: leftovers.Outcome, in_flight: bool = True
    ) -> tuple[list[str], float]:
        """Let it sweep; the last outcome is that of all further sweeps.

        :return: what was in the way at the end, and when that was.
        """
        now = 1000.0
        left = list(outcomes)

        def sleep(seconds: float) -> None:
            nonlocal now
            now += seconds

        def sweep() -> leftovers.Outcome:
            return left.pop(0) if len(left) > 1 else left[0]

        monkeypatch.setattr(reaper, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
        return reaper.sweep_until_quiet(sweep, in_flight), now - 1000

    def test_it_waits_for_what_an_engine_was_making(self, monkeypatch: pytest.MonkeyPatch) -> None:
        nothing = leftovers.Outcome(settle=2)
        found = leftovers.Outcome(["container x"], settle=2)
        problems, took = self.sweeps(monkeypatch, found, nothing, nothing, found, nothing)
        assert problems == []
        assert took == pytest.approx(0.75 + 2)

    def test_it_does_not_where_nothing_can_be_under_way(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = leftovers.Outcome(["container x"], settle=2)
        assert self.sweeps(monkeypatch, found, in_flight=False) == ([], 0)

    def test_it_tries_again_what_failed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        busy = leftovers.Outcome(problems=["busy"])
        problems, took = self.sweeps(monkeypatch, busy, busy, leftovers.Outcome())
        assert problems == []
        assert took == pytest.approx(0.5)

    def test_its_patience_has_an_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        busy = leftovers.Outcome(problems=["busy"])
        problems, took = self.sweeps(monkeypatch, busy)
        assert problems == ["busy"]
        assert took == pytest.approx(reaper.PATIENCE, rel=0.01)


class TestRelease:
    """Of what backends have, with backends that a test makes up."""

    @pytest.fixture
    def installed(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
        there: dict[str, object] = {}

        def create(name: str) -> object:
            if isinstance(there[name], Exception):
                raise there[name]
            return there[name]

        monkeypatch.setattr(backends, "names", lambda: sorted(there))
        monkeypatch.setattr(backends, "create", create)
        return there

    class Failing(FakeBackend):
        def reap(self, run: str, records: object) -> list[str]:
            raise DeploymentError("busy")

    def test_the_fake_backend_reaps(self) -> None:
        backend: Backend = FakeBackend()
        assert isinstance(backend, Reaps)

    def test_only_noted_backends_are_asked(
        self, session: Session, installed: dict[str, object]
    ) -> None:
        installed.update(fake=FakeBackend(), other=self.Failing())
        record = session.record("fake", "x")
        assert leftovers.release(session.id, session.directory).problems == []
        session.forget(record)

    def test_all_are_asked_where_the_directory_is_lost(
        self, tmp_path: Path, installed: dict[str, object]
    ) -> None:
        installed.update(fake=FakeBackend(), other=self.Failing())
        outcome = leftovers.release("nxc-1", tmp_path / "lost")
        assert outcome.problems == ["backend other: busy"]

    def test_a_broken_backend_does_not_keep_others_from_it(
        self, tmp_path: Path, installed: dict[str, object]
    ) -> None:
        installed.update(a=ImportError("no module"), b=self.Failing(), fake=FakeBackend())
        outcome = leftovers.release("nxc-1", None)
        assert outcome.problems == ["backend a cannot be loaded: no module", "backend b: busy"]
        assert outcome.settle == FakeBackend.settle


class TestDeadRuns:
    def dead_run(self, place: Path, run: str) -> Path:
        me = Owner.of()
        gone = Owner(me.pid, me.start - 1, me.uid, me.host)
        return leftovers.new_directory(place, run, gone)

    def told(self, session: Session, monkeypatch: pytest.MonkeyPatch, place: Path) -> list[str]:
        monkeypatch.setattr(leftovers, "state_dir", lambda: place)
        said: list[Event] = []
        session.events.subscribe(said.append)
        session.look_for_dead_runs()
        session.look_for_dead_runs()
        return [event.message for event in said if isinstance(event, Progress)]

    def test_they_are_told_once(
        self, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.dead_run(tmp_path, "nxc-1")
        self.dead_run(tmp_path, "nxc-2")
        assert self.told(session, monkeypatch, tmp_path) == [
            "2 dead runs left things behind: nxc-test reap"
        ]

    def test_one_that_is_being_reaped_is_not_told(
        self, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        leftovers.claim(self.dead_run(tmp_path, "nxc-1"))
        assert self.told(session, monkeypatch, tmp_path) == []

    def test_running_and_kept_ones_are_not_told(
        self, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (self.dead_run(tmp_path, "nxc-1") / leftovers.KEPT).touch()
        assert self.told(session, monkeypatch, tmp_path) == []

    def test_a_directory_that_is_being_made_is_not_dead(
        self, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "runs" / "nxc-1").mkdir()
        assert self.told(session, monkeypatch, tmp_path) == []

    def test_one_whose_maker_died_at_once_is(
        self, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "runs" / "nxc-1").mkdir()
        monkeypatch.setattr(leftovers, "NEWBORN", 0)
        assert len(self.told(session, monkeypatch, tmp_path)) == 1
