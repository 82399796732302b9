"""Shows on the terminal, while it happens, what is slow; with -v commands, with -vv outputs."""

from __future__ import annotations

import queue
import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest

from nxc_testing.events import (
    CommandFinished,
    CommandOutput,
    CommandStarted,
    ConsoleOutput,
    Event,
    FaultChanged,
    Logged,
    MachineEnded,
    MachineEvent,
    MachineStarted,
    Progress,
    SectionStarted,
    WaitFinished,
    WaitStarted,
)

if TYPE_CHECKING:
    from nxc_testing.session import Session

ALWAYS, COMMANDS, OUTPUTS = range(3)


class Live:
    """A plugin that reads the event stream and writes to pytest's terminal.

    Only the main thread writes: nowhere else can pytest's capture be lifted safely. What other
    threads tell waits until the main thread tells something too, or until `flush`.

    :param config: of the run.
    """

    def __init__(self, config: pytest.Config):
        self._config = config
        self._verbosity = config.get_verbosity()
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._shown: dict[str, CommandStarted] = {}

    def pytest_nxc_session_start(self, session: Session) -> None:
        """Read from the first event on."""
        session.events.subscribe(self.show)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self) -> None:
        """Write what came before the outcome before the outcome."""
        self.flush()

    def show(self, event: Event) -> None:
        """Take in an event."""
        level, text = _shown_at(event)
        if self._verbosity >= level and not self._is_repeated(event):
            who = getattr(event, "machine", "")
            for line in text.splitlines():
                self._lines.put(f"{who}: {line}" if who else line)
        if threading.current_thread() is threading.main_thread():
            self.flush()

    def flush(self) -> None:
        """Write what has come so far; called by the main thread."""
        lines = []
        while not self._lines.empty():
            lines.append(self._lines.get_nowait())
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if not lines or reporter is None:
            return
        capture = self._config.pluginmanager.get_plugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture else nullcontext():
            reporter.ensure_newline()
            if self._config.get_terminal_writer().width_of_current_line:
                reporter.line("")
            for line in lines:
                reporter.write_line(line)
            reporter.flush()

    def _is_repeated(self, event: Event) -> bool:
        """Whether a command, or what it did, was shown just before: a wait looks often."""
        if not isinstance(event, MachineEvent):
            return False
        shown = self._shown.get(event.machine)
        if isinstance(event, CommandStarted):
            if shown and shown.command == event.command:
                return True
            self._shown[event.machine] = event
        elif isinstance(event, (CommandFinished, CommandOutput)):
            return shown is not None and shown.id != event.id
        return False


def _shown_at(event: Event) -> tuple[int, str]:
    """The verbosity from which on an event is shown, and as what."""
    match event:
        case Progress():
            return ALWAYS, f"{event.topic}: {event.message}"
        case CommandStarted():
            return COMMANDS, f"$ {event.command}"
        case CommandFinished() if event.status != 0:
            end = event.error or f"exit code {event.status}"
            return COMMANDS, f"{end} after {event.duration:.2f} s"
        case WaitStarted():
            return COMMANDS, f"waiting for {event.what}"
        case WaitFinished() if not event.error:
            return COMMANDS, f"waited {event.duration:.2f} s for {event.what}"
        case MachineStarted():
            return COMMANDS, f"started (boot {event.boot})"
        case MachineEnded():
            return COMMANDS, f"ended: {event.reason}"
        case FaultChanged():
            return COMMANDS, f"fault{'' if event.active else ' over'}: {event.fault}"
        case SectionStarted():
            return COMMANDS, f"{event.kind}: {event.name}"
        case Logged():
            return COMMANDS, event.message
        case CommandOutput():
            return OUTPUTS, event.text
        case ConsoleOutput():
            return OUTPUTS, event.text
    return OUTPUTS, ""
