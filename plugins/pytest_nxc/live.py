"""Shows on the terminal, while it happens, what is slow; with -v commands, with -vv outputs."""

from __future__ import annotations

import queue
import sys
import threading
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest

from nxc_testing import transcript
from nxc_testing.events import (
    CommandFinished,
    CommandOutput,
    CommandStarted,
    Event,
    MachineEvent,
)

if TYPE_CHECKING:
    from nxc_testing.session import Session


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
        # There is nothing beyond -vv for pytest's users.
        wanted = min(transcript.detail(event), transcript.Detail.OUTPUTS)
        if self._verbosity >= wanted and not self._is_repeated(event):
            for line in transcript.lines(event):
                self._lines.put(line)
        if threading.current_thread() is threading.main_thread():
            self.flush()

    def flush(self) -> None:
        """Write what has come so far; called by the main thread."""
        lines = []
        while not self._lines.empty():
            lines.append(self._lines.get_nowait())
        if not lines:
            return
        capture = self._config.pluginmanager.get_plugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture else nullcontext():
            self._write(lines)

    def _write(self, lines: list[str]) -> None:
        if worker := getattr(self._config, "workerinput", {}).get("workerid"):
            # It has no other way to the terminal than this.
            sys.stderr.write("".join(f"[{worker}] {line}\n" for line in lines))
            sys.stderr.flush()
            return
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is None:
            return
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
