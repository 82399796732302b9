"""One machine's shell: many commands, side by side, over one channel."""

from __future__ import annotations

import itertools
import logging
import queue
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Protocol

from nxc_testing.backends.base import Channel
from nxc_testing.errors import InfraError, ShellLost
from nxc_testing.events import Stream
from nxc_testing.shell.frames import Frame, FrameDecoder, order
from nxc_testing.shell.text import Text
from nxc_testing.shell.wire import Wire
from nxc_testing.waiting import Deadline

logger = logging.getLogger("nxc_testing.shell")

TIMED_OUT = 124
START_TIMEOUT = 60.0
TERM_GRACE = 0.3
KILL_GRACE = 2.0
INPUT_CHUNK = 1 << 16
INPUT_WINDOW = 1 << 20
SIGTERM, SIGKILL = "15", "9"

# A shell that reads its script ahead would swallow what follows, so the source is sent only when
# the loader has said that it is there.
LOADER = (
    "command -v perl >/dev/null 2>&1 || {{ printf '%s N 0 4\\nperl' {token}; exit; }};"
    ' exec perl -C0 -e \'$|=1; print "{token} P 0 0\\n"; my $n={length}; my $s="";'
    " while(length $s<$n){{sysread(STDIN,$s,$n-length $s,length $s) or exit}}"
    ' our $TOKEN="{token}"; eval $s; die $@\' 2>&1\n'
)


class Cancelled(Exception):
    """Raised by a command's input: the command is to end as at its deadline."""


class Observer(Protocol):
    """Who is told what commands print, while they run; called on the background thread."""

    def output(self, command: int, stream: Stream, data: bytes, late: bool) -> None:
        """A command printed something; late: after it had ended."""

    def held(self, command: int) -> None:
        """A command's process has ended, but something still holds its stdout."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended.

    :ivar status: its exit status; 124 where it was ended at its deadline.
    :ivar stdout: what it printed; empty where a sink took it.
    :ivar duration: seconds.
    :ivar timed_out: whether the deadline ended it; a command may exit with 124 by itself.
    """

    status: int
    stdout: bytes
    stderr: bytes
    duration: float
    timed_out: bool


@dataclass(slots=True)
class _Command:
    """What has come of a command; without status and error when over, its shell was lost."""

    sink: Callable[[bytes], None] | None = None
    stdout: list[bytes] = field(default_factory=list)
    stderr: list[bytes] = field(default_factory=list)
    over: bool = False
    status: int | None = None
    error: Exception | None = None
    taken: int = 0
    news: queue.SimpleQueue[int] = field(default_factory=queue.SimpleQueue)

    def end(self, status: int | None = None, error: Exception | None = None) -> None:
        if self.over:
            return
        if self.sink is not None:
            with suppress(Exception):
                self.sink(b"")
        self.over, self.status, self.error = True, status, error
        self.news.put(0)

    def wait_taken(self, count: int, deadline: Deadline) -> None:
        """Wait until so much of the input was taken."""
        while self.taken < count and self._hear(deadline.remaining()):
            pass

    def wait(self, timeout: float | None) -> bool:
        """Wait for the end; whether it came."""
        deadline = Deadline(timeout)
        while self._hear(deadline.remaining()):
            pass
        return self.over

    def _hear(self, timeout: float | None) -> bool:
        """Wait for news; false where there is no more."""
        if self.over:
            return False
        try:
            self.taken += self.news.get(timeout=timeout)
        except queue.Empty:
            return False
        return True


class Shell:
    """Runs commands in a machine. Thread-safe; commands of several threads run side by side.

    :param name: the machine's name, for messages.
    :param channel: a root shell in the machine; owned from now on.
    :param observer: told what commands print.
    :param lost: says why the channel ended: a machine that died, or a shell that was killed;
        it is told whether `close()` was called.
    :param ids: where commands' numbers come from; whoever draws from it too gives no number
        twice, and so what comes late is never taken for another command's.
    :raise ShellLost: if the far end does not answer or has no perl.
    """

    def __init__(
        self,
        name: str,
        channel: Channel,
        observer: Observer | None = None,
        lost: Callable[[bool], InfraError] | None = None,
        ids: Iterator[int] | None = None,
    ):
        self.name = name
        self._observer = observer
        self._lost = lost or (lambda _: ShellLost(f"{name}: the shell in the machine ended"))
        self._ids = ids or itertools.count(1)
        self._commands: dict[int, _Command] = {}
        self._lock = threading.Lock()
        self._ended = self._closing = self._ended_by_close = False
        token = secrets.token_hex(8)
        self._decoder = FrameDecoder(token)
        self._greetings = threading.Semaphore(0)
        self._refusal = ""
        self._wire = Wire(channel, self._on_data, self._on_close)
        self._introduce(token)

    def _introduce(self, token: str) -> None:
        source = agent_source()
        self._wire.write(LOADER.format(token=token, length=len(source)).encode())
        for message in (source, b""):
            answered = self._greetings.acquire(timeout=START_TIMEOUT)
            if not answered or self._refusal or self._ended:
                raise self._no_shell()
            self._wire.write(message)

    def _no_shell(self) -> InfraError:
        said = self._decoder.noise.decode(errors="replace").strip()
        if self._ended and not self._refusal:
            error = self._lost(False)
            if not isinstance(error, ShellLost):
                return error
        why = self._refusal or ("it ended" if self._ended else "it does not answer")
        self.close()
        return ShellLost(
            f"{self.name}: no shell in the machine: {why}" + (f"; it said: {said}" if said else "")
        )

    @property
    def closed(self) -> bool:
        """Whether it can run no more commands."""
        return self._ended or self._closing

    def run(
        self,
        text: Text,
        timeout: float | None,
        *,
        identifier: int | None = None,
        stdin: Iterator[bytes] | None = None,
        sink: Callable[[bytes], None] | None = None,
    ) -> Result:
        """Run a command to its end: its process has ended and its stdout is closed.

        :param timeout: seconds; then its whole process tree is ended. None waits for ever.
        :param identifier: its number, from `ids`; drawn if not given.
        :param stdin: what it reads; without it, /dev/null. What it raises ends the command;
            `Cancelled` does so as a deadline would, and the rest is raised here.
        :param sink: takes its stdout piece by piece, on the background thread, and an empty
            piece at its end. What it raises ends the command and is raised here.
        :raise ShellLost: if the shell ended meanwhile, or `lost` says what else happened.
        """
        deadline = Deadline(timeout)
        number = next(self._ids) if identifier is None else identifier
        command = self._register(number, _Command(sink))
        arguments = ("x" if text.own_bash else "e", text.environment, "1" if stdin else "0")
        try:
            self._wire.write(order("R", number, *arguments, payload=text.body))
            if stdin is not None:
                self._feed(number, command, stdin, deadline)
            timed_out = not command.wait(deadline.remaining()) and not self._stop(number, command)
        except Cancelled:
            timed_out = False
            self._stop(number, command)
        except BaseException:
            # Ctrl-C or a test's own timeout: the command must not outlive the wait for it.
            self._signal(number, SIGKILL)
            raise
        finally:
            self._commands.pop(number, None)
        self._raise_for(command)
        return Result(
            TIMED_OUT if timed_out or command.status is None else command.status,
            b"".join(command.stdout),
            b"".join(command.stderr),
            deadline.elapsed(),
            timed_out,
        )

    def ping(self, timeout: float) -> bool:
        """Whether the far end answers.

        :param timeout: seconds.
        :raise InfraError: if it is gone.
        """
        number = next(self._ids)
        command = self._register(number, _Command())
        try:
            self._wire.write(order("P", number))
            answered = command.wait(timeout)
        finally:
            self._commands.pop(number, None)
        self._raise_for(command)
        return answered

    def _register(self, number: int, command: _Command) -> _Command:
        with self._lock:
            if self._ended:
                raise self._lost(self._ended_by_close)
            if self._closing:
                raise self._lost(True)
            self._commands[number] = command
        return command

    def _raise_for(self, command: _Command) -> None:
        if command.error is not None:
            raise command.error
        if command.over and command.status is None:
            raise self._lost(self._ended_by_close)

    def _feed(
        self, number: int, command: _Command, stdin: Iterator[bytes], deadline: Deadline
    ) -> None:
        sent = 0
        for piece in stdin:
            for start in range(0, len(piece), INPUT_CHUNK):
                part = piece[start : start + INPUT_CHUNK]
                sent += len(part)
                command.wait_taken(sent - INPUT_WINDOW, deadline)
                if command.over or deadline.expired:
                    return
                self._wire.write(order("I", number, payload=part))
        self._wire.write(order("I", number))

    def _stop(self, number: int, command: _Command) -> bool:
        """End a command at its deadline. Whether it had ended by itself just then."""
        if command.over:
            return True
        for signal, grace in ((SIGTERM, TERM_GRACE), (SIGKILL, KILL_GRACE)):
            self._signal(number, signal)
            if command.wait(grace):
                break
        return False

    def _signal(self, number: int, signal: str) -> None:
        self._wire.write(order("K", number, signal))

    def close(self) -> None:
        """End the shell and every command that still runs in it."""
        self._closing = True
        self._wire.close()

    # --- on the background thread

    def _on_data(self, data: bytes) -> None:
        for frame in self._decoder.feed(data):
            try:
                self._on_frame(frame)
            except Exception:
                # The frames behind it are other commands'.
                logger.exception("%s: a message from the machine went wrong", self.name)

    def _on_frame(self, frame: Frame) -> None:
        command = self._commands.get(frame.id)
        match frame.kind:
            case "P" if command:
                command.end(0)
            case "P":
                self._greetings.release()
            case "N":
                self._refusal = f"{frame.payload.decode()} is missing in it"
                self._greetings.release()
            case "O" | "E" | "L":
                self._on_output(frame, command)
            case "A" if command:
                command.news.put(int(frame.payload))
            case "H" if self._observer:
                self._observer.held(frame.id)
            case "D" if command:
                command.end(int(frame.payload))
            case "F" if command:
                why = frame.payload.decode(errors="replace").strip()
                command.end(error=ShellLost(f"{self.name}: no shell for the command: {why}"))

    def _on_output(self, frame: Frame, command: _Command | None) -> None:
        stream = Stream.STDOUT if frame.kind == "O" else Stream.STDERR
        if command is not None and frame.kind == "E":
            command.stderr.append(frame.payload)
        elif command is not None and frame.kind == "O" and command.sink is None:
            command.stdout.append(frame.payload)
        elif command is not None and frame.kind == "O":
            self._fill_sink(frame, command)
        if self._observer is not None:
            self._observer.output(frame.id, stream, frame.payload, frame.kind == "L")

    def _fill_sink(self, frame: Frame, command: _Command) -> None:
        if command.sink is None or command.over:
            return
        try:
            command.sink(frame.payload)
        except Exception as error:
            command.end(error=error)
            self._signal(frame.id, SIGKILL)

    def _on_close(self) -> None:
        with self._lock:
            # Whoever finds that it has ended closes it, too.
            self._ended, self._ended_by_close = True, self._closing
            commands = list(self._commands.values())
        self._greetings.release()
        for command in commands:
            command.end()


@cache
def agent_source() -> bytes:
    """The agent as it is sent to a machine."""
    return files("nxc_testing.shell").joinpath("agent.pl").read_bytes()
