"""One stream of typed events: who did what, when, how long, with what end.

Everything that reports (log, timeline, JUnit, GitLab sections) reads this stream and nothing
else, while it flows or from the file that `event_log.py` keeps of it.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar

logger = logging.getLogger("nxc_testing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events.

    :ivar time: seconds since the epoch.
    """

    type: ClassVar[str] = "event"
    time: float = field(default_factory=time.time)

    def __init_subclass__(cls) -> None:
        cls.type = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", cls.__name__).lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """A session began."""

    run: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished(Event):
    """A session ended and released what it had."""

    run: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress(Event):
    """Something slow that belongs to no machine: an image build, a lock, a deployment.

    :ivar topic: what it is about, like `image oar`.
    """

    topic: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineEvent(Event):
    """Base of the events of one machine."""

    machine: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineStarted(MachineEvent):
    """Its power is on.

    :ivar boot: which boot, from 1.
    """

    boot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineEnded(MachineEvent):
    """It is off.

    :ivar reason: how it ended.
    """

    boot: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleOutput(MachineEvent):
    """Its console printed something: whole lines where possible."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandStarted(MachineEvent):
    """A command was sent.

    :ivar id: unique within the run and machine.
    :ivar timeout: seconds, or None.
    """

    id: int
    command: str
    timeout: float | None


class Stream(Enum):
    """Which of a command's outputs."""

    STDOUT = "stdout"
    STDERR = "stderr"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandOutput(MachineEvent):
    """A command printed something; bytes that are not UTF-8 are replaced.

    :ivar late: it came after the command had ended (a daemon that kept its stderr).
    """

    id: int
    stream: Stream
    text: str
    late: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandFinished(MachineEvent):
    """A command ended.

    :ivar status: its exit status; None where it has none (the machine died).
    :ivar error: why it has none.
    """

    id: int
    status: int | None
    duration: float
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitStarted(Event):
    """Something is waited for; `machine` is empty where it is no single machine's.

    :ivar timeout: seconds, or None.
    """

    machine: str
    what: str
    timeout: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitFinished(Event):
    """The wait is over.

    :ivar error: why it failed; empty where it did not.
    """

    machine: str
    what: str
    duration: float
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultChanged(MachineEvent):
    """A fault was put on a machine, or taken off it.

    :ivar fault: its name: `block`, `freeze`, `crash`, ...
    """

    fault: str
    active: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionStarted(Event):
    """A named part began: a subtest, or a `nested` block.

    :ivar kind: `subtest` or `nested`.
    """

    kind: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionFinished(Event):
    """A named part ended."""

    kind: str
    name: str
    duration: float
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TestStarted(Event):
    """A pytest test began; events up to its end are its own, where tests run one by one."""

    __test__: ClassVar[bool] = False

    test: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TestFinished(Event):
    """A pytest test ended.

    :ivar outcome: `passed`, `failed` or `skipped`.
    """

    __test__: ClassVar[bool] = False

    test: str
    outcome: str
    duration: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged(Event):
    """The test said something through `log` or `machine.log`; `machine` may be empty.

    :ivar level: `debug`, `info`, `warning` or `error`.
    """

    machine: str
    message: str
    level: str = "info"


Sink = Callable[[Event], None]


class Events:
    """Gives every event to every reader, in the order of emission. Safe from any thread."""

    def __init__(self) -> None:
        self._sinks: tuple[Sink, ...] = ()
        self._lock = threading.Lock()

    def subscribe(self, sink: Sink) -> Callable[[], None]:
        """Let a function see every event from now on.

        :param sink: called from whichever thread emits; it must be quick. What it raises is
            logged: a broken reader never breaks a test.
        :return: a function that ends the subscription.
        """
        with self._lock:
            self._sinks = (*self._sinks, sink)

        def unsubscribe() -> None:
            with self._lock:
                self._sinks = tuple(s for s in self._sinks if s is not sink)

        return unsubscribe

    def emit(self, event: Event) -> None:
        """Give an event to all readers."""
        for sink in self._sinks:
            try:
                sink(event)
            except Exception:
                logger.exception("an event reader failed on %s", event.type)
