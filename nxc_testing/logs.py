"""What a testScript logs with: `log`, and named parts of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from nxc_testing.errors import RequestedAssertionFailed
from nxc_testing.events import (
    Events,
    Logged,
    SectionFinished,
    SectionStarted,
    WaitFinished,
    WaitStarted,
)
from nxc_testing.waiting import Deadline

CONSOLES = "consoles are always in the event log; pytest shows them with -vv"


@contextmanager
def section(events: Events, kind: str, name: str) -> Iterator[None]:
    """A named part of the test.

    :param kind: `subtest` or `nested`.
    """
    events.emit(SectionStarted(kind=kind, name=name))
    began = time.monotonic()
    error = ""
    try:
        yield
    except BaseException as caught:
        error = str(caught).split("\n", 1)[0] or type(caught).__name__
        raise
    finally:
        duration = time.monotonic() - began
        events.emit(SectionFinished(kind=kind, name=name, duration=duration, error=error))


@contextmanager
def waiting(events: Events, machine: str, what: str, deadline: Deadline) -> Iterator[None]:
    """A wait, from its start to its end.

    :param machine: its name; empty where it is no single machine's.
    """
    events.emit(WaitStarted(machine=machine, what=what, timeout=deadline.total))
    error = ""
    try:
        yield
    except BaseException as caught:
        error = str(caught).split("\n", 1)[0] or type(caught).__name__
        raise
    finally:
        duration = deadline.elapsed()
        events.emit(WaitFinished(machine=machine, what=what, duration=duration, error=error))


class Log:
    """The global `log` of a testScript; upstream's names, and callable as some scripts do."""

    def __init__(self, events: Events):
        self._events = events

    def __call__(self, message: str, attributes: dict[str, str] | None = None) -> None:
        """Log a line."""
        self._say(message, "info")

    def log(self, message: str, attributes: dict[str, str] | None = None) -> None:
        """Log a line."""
        self._say(message, "info")

    def info(self, message: str, *args: object, **kwargs: object) -> None:
        """Log a line."""
        self._say(message, "info")

    def debug(self, message: str, *args: object, **kwargs: object) -> None:
        """Log a detail."""
        self._say(message, "debug")

    def warning(self, message: str, *args: object, **kwargs: object) -> None:
        """Log a warning."""
        self._say(message, "warning")

    def error(self, message: str, *args: object, **kwargs: object) -> None:
        """Log an error and end the script, as upstream does, but as a failure of the test.

        :raise RequestedAssertionFailed: always.
        """
        self._say(message, "error")
        raise RequestedAssertionFailed(f"log.error: {message}")

    def log_serial(self, message: str, machine: str) -> None:
        """Log a line of a machine's console."""
        self._events.emit(Logged(machine=machine, message=message))

    def log_test_error(self, message: str, *args: object, **kwargs: object) -> None:
        """Log an error and go on."""
        self._say(message, "error")

    def print_serial_logs(self, enable: bool) -> None:
        """Upstream's switch for consoles: here they are always in the event log."""
        self._say(CONSOLES, "debug")

    def subtest(
        self, name: str, attributes: dict[str, str] | None = None
    ) -> AbstractContextManager[None]:
        """A part of the log that is called a subtest; the global `subtest` has an outcome too."""
        return section(self._events, "subtest", name)

    def nested(
        self, message: str, attributes: dict[str, str] | None = None
    ) -> AbstractContextManager[None]:
        """A named part of the log."""
        return section(self._events, "nested", message)

    def _say(self, message: str, level: str) -> None:
        self._events.emit(Logged(machine="", message=str(message), level=level))
