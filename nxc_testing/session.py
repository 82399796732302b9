"""A session: one run's identity, its private directory, its locks, and what it must release.

Everything that a run makes outside its own process carries the run's labels and is recorded in
the run directory before it is made, so that anyone can find it and take it away: the run itself,
the reaper that waits beside it, or a person with `nxc-test reap`.
"""

from __future__ import annotations

import itertools
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nxc_testing.errors import InfraError
from nxc_testing.event_log import EventLog
from nxc_testing.events import Events, Progress, RunFinished, RunStarted
from nxc_testing.runs import leftovers
from nxc_testing.runs.guard import Guard
from nxc_testing.runs.journal import Journal, Record
from nxc_testing.runs.locks import host_lock
from nxc_testing.runs.owner import Owner
from nxc_testing.runs.places import remove_tree, state_dir
from nxc_testing.runs.reaper import LOG

LABEL_RUN = "nxc_testing.run"
LABEL_OWNER = "nxc_testing.owner"
LABEL_KEPT = "nxc_testing.kept"
LABEL_COMPOSITION = "nxc_testing.composition"


class Session:
    """One run. If its process ends without `close`, its reaper releases what it had.

    :param root: where run directories are made; the user's runtime directory by default.
    :param event_log: a file that its events are appended to.
    :raise UnsafePath: if another user has a hand in where its directory is to be.
    :ivar id: unique, fit for names of containers and networks.
    :ivar owner: this process.
    :ivar directory: private, mode 0700, removed at the end.
    :ivar events: the run's event stream.
    """

    def __init__(self, root: Path | None = None, *, event_log: Path | None = None):
        self.id = f"nxc-{secrets.token_hex(4)}"
        self.owner = Owner.of()
        place = root or state_dir()
        self.directory = place / leftovers.RUNS / self.id
        self.events = Events()
        self._stack = ExitStack()
        self._closed = self._kept = self._looked = False
        self._numbers: defaultdict[str, Iterator[int]] = defaultdict(lambda: itertools.count(1))
        # First, so that there is no moment at which something could be left.
        self._guard = Guard(self.id, self.directory, self.owner)
        try:
            leftovers.new_directory(place, self.id, self.owner)
            self._journal = Journal(self.directory)
            if event_log is not None:
                self._write_events(event_log)
        except BaseException:
            self._guard.dismiss()
            remove_tree(self.directory)
            raise
        self.events.emit(RunStarted(run=self.id))

    @property
    def labels(self) -> dict[str, str]:
        """The labels for everything this run makes."""
        kept = {LABEL_KEPT: "true"} if self._kept else {}
        return {LABEL_RUN: self.id, LABEL_OWNER: str(self.owner), **kept}

    def progress(self, topic: str, message: str) -> None:
        """Tell the user how something slow goes on."""
        self.events.emit(Progress(topic=topic, message=message))

    def number(self, kind: str) -> int:
        """How many of a kind this run has had, with this one: 1 for the first."""
        return next(self._numbers[kind])

    def record(
        self, backend: str, identifier: str, *, composition: str = "", machines: Sequence[str] = ()
    ) -> Record:
        """Note something that outlives this process, before it is made.

        :param backend: the name of the backend that can release it.
        :param identifier: enough for that backend to find it.
        :param composition: what it is for.
        :param machines: the machines' names.
        :return: the record, for `forget`.
        :raise InfraError: if nobody would release it, should this process be killed.
        """
        record = Record(backend, identifier, composition, tuple(machines))
        self._guard.ensure()
        self._journal.add(record)
        return record

    def forget(self, record: Record) -> None:
        """Note that all of it is gone. What is not forgotten at the end, the reaper releases."""
        if not self._closed:
            self._journal.drop(record)

    def keep(self) -> None:
        """Leave what is made from now on where it is, however this process ends."""
        if not self._kept:
            self._kept = True
            (self.directory / leftovers.KEPT).touch(mode=0o600)
            self._guard.dismiss()

    def look_for_dead_runs(self) -> None:
        """Tell the user once if dead runs of theirs have left something."""
        dead = [] if self._looked else leftovers.dead_here()
        self._looked = True
        if dead:
            what = "a dead run" if len(dead) == 1 else f"{len(dead)} dead runs"
            self.progress("runs", f"{what} left things behind: nxc-test reap")

    def on_close(self, release: Callable[[], None]) -> None:
        """Release something when the session ends, in reverse order."""
        self._stack.callback(release)

    @contextmanager
    def lock(self, name: str, *, timeout: float = -1) -> Iterator[None]:
        """Hold a lock that all runs of this host share.

        :param name: the lock's name.
        :param timeout: seconds to wait; -1 waits for ever, saying for whom.
        :raise LockTimeout: if it is not free in time.
        """
        with host_lock(name, self.id, timeout, lambda text: self.progress(f"lock {name}", text)):
            yield

    def close(self) -> None:
        """Release everything and remove the run directory; may be called twice.

        What a backend could not release, the reaper tries to.

        :raise InfraError: if it does not succeed soon.
        """
        if self._closed:
            return
        self.events.emit(RunFinished(run=self.id))
        try:
            self._stack.close()
        finally:
            self._closed = True
            self._end()

    def _write_events(self, path: Path) -> None:
        log = EventLog(path, self.id)
        self._stack.callback(log.close)
        self._stack.callback(self.events.subscribe(log))

    def _end(self) -> None:
        left = self._journal.records()
        if not left:
            try:
                remove_tree(self.directory)
            except OSError as error:
                # The reaper tries it again when this process has ended.
                raise InfraError(f"run {self.id}: {error}") from error
            self._guard.dismiss()
            return
        if self._kept:
            return
        self._guard.hand_over()
        if self.directory.exists():
            backends = ", ".join(sorted({record.backend for record in left}))
            raise InfraError(
                f"run {self.id}: not everything of backend {backends} is released yet; "
                f"what there is shows `nxc-test ps`, what is in the way {self.directory / LOG}"
            )
