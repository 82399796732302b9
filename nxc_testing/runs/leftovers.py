"""What runs have on this host, living and dead, and how it is released."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from nxc_testing import backends
from nxc_testing.backends.base import Reaps, Trace
from nxc_testing.errors import BackendUnavailable
from nxc_testing.runs.journal import Journal, Record
from nxc_testing.runs.owner import Life, Owner
from nxc_testing.runs.places import private_directory, remove_tree, state_dir, state_dirs

RUNS = "runs"
"""The folder in a state directory that has a directory for each run."""

OWNER, KEPT, REAPER = "owner", "kept", "reaper"
"""Files in a run's directory: whose it is; there if it is to be kept; who reaps it."""

NEWBORN = 60.0
"""Seconds for which a directory that nobody owns may be one that is being made."""


class State(Enum):
    """How a run is.

    ELSEWHERE: its process is in another container or on another host, and cannot be seen.
    """

    RUNNING = "running"
    KEPT = "kept"
    ENDING = "being reaped"
    DEAD = "dead"
    ELSEWHERE = "elsewhere"


@dataclass(slots=True)
class Run:
    """A run, as its directory and the backends know it.

    :ivar directory: None where it has none any more, or it is another user's.
    :ivar things: what backends have of it, in words.
    :ivar started: seconds since the epoch; 0 if unknown.
    """

    id: str
    owner: Owner | None = None
    directory: Path | None = None
    kept: bool = False
    records: list[Record] = field(default_factory=list)
    traces: list[Trace] = field(default_factory=list)
    started: float = 0.0

    @property
    def state(self) -> State:
        """How it is at this moment."""
        life = self._life()
        if life is Life.ALIVE:
            return State.RUNNING
        if self.kept:
            return State.KEPT
        if life is Life.UNKNOWN:
            return State.ELSEWHERE
        return State.ENDING if self._is_reaped() else State.DEAD

    def _life(self) -> Life:
        if self.owner:
            return self.owner.life()
        if self.directory and time.time() - self.started > NEWBORN:
            return Life.DEAD
        return Life.UNKNOWN

    def _is_reaped(self) -> bool:
        reaper = _owner_in(self.directory / REAPER) if self.directory else None
        return reaper is not None and reaper.life() is Life.ALIVE

    @property
    def backends(self) -> list[str]:
        """Those that it has something of."""
        return _distinct([*(r.backend for r in self.records), *(t.backend for t in self.traces)])

    @property
    def compositions(self) -> list[str]:
        """Those that are deployed in it."""
        named = [r.composition for r in self.records] or [t.composition for t in self.traces]
        return _distinct(name for name in named if name)

    @property
    def machines(self) -> list[str]:
        """The names of its machines."""
        parts = self.records or self.traces
        return [name for part in parts for name in part.machines]

    @property
    def things(self) -> list[str]:
        """What there is of it, in words."""
        found = [thing for trace in self.traces for thing in trace.things]
        return [*found, f"directory {self.directory}"] if self.directory else found


@dataclass(slots=True)
class Outcome:
    """What came of an attempt to release something, or to look for it.

    :ivar removed: what is gone now, in words.
    :ivar problems: what is in the way, in words; empty if all is well.
    :ivar settle: seconds for which something may still turn up.
    """

    removed: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    settle: float = 0.0


def find() -> tuple[list[Run], list[str]]:
    """All runs that have something on this host or its engines, the oldest first.

    :return: the runs; and why it may not be all, in words.
    """
    runs = {run.id: run for place in state_dirs() for run in runs_in(place)}
    problems: list[str] = []
    for backend in _reaping(problems).values():
        try:
            traces = backend.traces()
        except BackendUnavailable as error:
            problems.append(str(error))
            continue
        for trace in traces:
            run = runs.setdefault(trace.run, Run(trace.run))
            run.traces.append(trace)
            run.owner = run.owner or Owner.parse(trace.owner)
            run.kept = run.kept or trace.kept
            run.started = run.started or trace.made
    return sorted(runs.values(), key=lambda run: run.started), problems


def runs_in(place: Path) -> Iterator[Run]:
    """Runs by their directories alone, which is quick."""
    root = place / RUNS
    for directory in root.iterdir() if root.is_dir() else ():
        try:
            started = directory.lstat().st_ctime
            own = directory / OWNER
            if own.exists():
                started = own.stat().st_mtime
        except FileNotFoundError:
            continue
        yield Run(
            directory.name,
            _owner_in(own),
            directory,
            (directory / KEPT).exists(),
            Journal(directory).records(),
            started=started,
        )


def dead_here() -> list[Run]:
    """Dead runs of this user that have left a directory; a quick look."""
    return [run for run in runs_in(state_dir()) if run.state is State.DEAD]


def new_directory(place: Path, run: str, owner: Owner) -> Path:
    """Make a run's directory.

    :raise UnsafePath: if another user has a hand in where it is to be.
    """
    directory = private_directory(place / RUNS) / run
    directory.mkdir(mode=0o700)
    (directory / OWNER).write_text(f"{owner}\n")
    return directory


def claim(directory: Path) -> None:
    """Tell others that this process reaps a run."""
    if directory.is_dir():
        (directory / REAPER).write_text(f"{Owner.of()}\n")


def may_have_something(directory: Path) -> bool:
    """Whether a run may have something beside its directory; without one nobody knows."""
    return not directory.is_dir() or bool(Journal(directory).records())


def release(run: str, directory: Path | None, *, thoroughly: bool = False) -> Outcome:
    """Release, once, what backends have of a run; the directory stays.

    :param directory: the run's; None if there is none.
    :param thoroughly: ask all backends, and not only those that the run has noted.
    """
    outcome = Outcome()
    records = Journal(directory).records() if directory and directory.is_dir() else None
    noted = {record.backend for record in records or ()}
    reaping = _reaping(outcome.problems)
    for name in noted - reaping.keys():
        outcome.problems.append(f"backend {name} is not installed, or releases nothing by itself")
    for name, backend in reaping.items():
        if name not in noted and records is not None and not thoroughly:
            continue
        outcome.settle = max(outcome.settle, backend.settle)
        try:
            outcome.removed += backend.reap(run, [r for r in records or () if r.backend == name])
        except BackendUnavailable as error:
            if name in noted:
                outcome.problems.append(str(error))
        except Exception as error:
            # A broken backend must not keep the others from doing their part.
            outcome.problems.append(f"backend {name}: {error}")
    return outcome


def remove(run: Run) -> Outcome:
    """Release everything of a run, and remove its directory if nothing is in the way."""
    outcome = release(run.id, run.directory, thoroughly=True)
    if run.directory and not outcome.problems:
        try:
            remove_tree(run.directory)
            outcome.removed.append(f"directory {run.directory}")
        except OSError as error:
            outcome.problems.append(str(error))
    return outcome


def _reaping(problems: list[str]) -> dict[str, Reaps]:
    """The backends that can release something, by name.

    :param problems: takes what keeps one from being loaded.
    """
    found: dict[str, Reaps] = {}
    for name in backends.names():
        try:
            backend = backends.create(name)
        except Exception as error:
            problems.append(f"backend {name} cannot be loaded: {error}")
            continue
        if isinstance(backend, Reaps):
            found[name] = backend
    return found


def _owner_in(path: Path) -> Owner | None:
    try:
        return Owner.parse(path.read_text())
    except OSError:
        return None


def _distinct(names: Iterator[str] | list[str]) -> list[str]:
    return list(dict.fromkeys(names))
