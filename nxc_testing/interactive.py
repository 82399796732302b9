"""Terminals driven by pexpect: of programs in a machine, and its serial console."""

from __future__ import annotations

import re
import shlex
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from pexpect import EOF, fdpexpect

from nxc_testing.errors import InfraError, MachineUsageError, Unsupported
from nxc_testing.shell import Cancelled
from nxc_testing.shell.loop import io_loop

if TYPE_CHECKING:
    from nxc_testing.console import Console
    from nxc_testing.machine import Machine

    Spawn = fdpexpect.fdspawn[str]
else:
    Spawn = fdpexpect.fdspawn

READ_SIZE = 1 << 16
CLOSE_TIMEOUT = 5.0


class Terminal(Spawn):
    """Something in a machine that is typed to; pexpect's `expect`, `sendline` and so on work.

    :param machine: its name.
    :ivar error: how the machine or its shell ended meanwhile, if one did.
    """

    def __init__(self, machine: str, timeout: float | None):
        self._ours, self._theirs = socket.socketpair()
        self._unread = bytearray()
        self._over = self._ended = False
        self.error: InfraError | None = None
        super().__init__(
            self._ours.fileno(), timeout=timeout, encoding="utf-8", codec_errors="replace"
        )
        name = f"nxc-{machine}-terminal"
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def sendcontrol(self, char: str) -> int:
        """Press a key together with Ctrl, as `sendcontrol("c")`.

        :param char: a letter, `[`, or another key that makes a control character.
        :return: how many bytes were sent.
        """
        if not re.fullmatch(r"[A-Za-z@\[\\\]^_?]", char):
            why = f"there is no Ctrl-{char!r}: give one letter, as in Ctrl-C"
            raise MachineUsageError(why)
        return self.send(chr(ord(char.upper()) ^ 0x40))

    def sendintr(self) -> int:
        """Press Ctrl-C."""
        return self.sendcontrol("c")

    def sendeof(self) -> int:
        """Press Ctrl-D: the end of input, at the start of a line."""
        return self.sendcontrol("d")

    def close(self) -> None:
        """Let go of it; may be called twice."""
        with suppress(OSError):
            self._ours.shutdown(socket.SHUT_RDWR)
        self._thread.join(CLOSE_TIMEOUT)
        # Not before: the other end would be reset if something shown is left unread.
        self._ours.close()
        self.child_fd = -1
        self.closed = True

    def __exit__(self, *_: object) -> None:
        """Let go of it."""
        self.close()

    def _serve(self) -> None:
        try:
            self._run()
        except InfraError as error:
            self.error = error
        io_loop().call(self._end)

    def _run(self) -> None:
        """Take what is typed, and show what is to be seen, until one side has enough."""
        raise NotImplementedError

    def _typed(self) -> Iterator[bytes]:
        while data := self._theirs.recv(READ_SIZE):
            yield data
        if not self._over:
            raise Cancelled

    # --- on the background loop

    def _shown(self, data: bytes) -> None:
        """Hand it on; what the test leaves unread waits here, as nothing else may wait for it."""
        self._over = self._over or not data
        self._unread += data
        self._pass_on()

    def _pass_on(self) -> None:
        loop = io_loop().asyncio
        try:
            del self._unread[: self._theirs.send(self._unread, socket.MSG_DONTWAIT)]
        except BlockingIOError:
            pass
        except OSError:
            self._unread.clear()
        if self._unread:
            loop.add_writer(self._theirs, self._pass_on)
            return
        loop.remove_writer(self._theirs)
        if self._ended:
            self._theirs.close()
        elif self._over:
            # The test reads the end, and `_typed` wakes.
            with suppress(OSError):
                self._theirs.shutdown(socket.SHUT_RDWR)

    def _end(self) -> None:
        self._over = self._ended = True
        self._pass_on()


class Interaction(Terminal):
    """A program on a terminal in a machine.

    It is a command like any other, whose stdin and stdout are what is typed and shown; so at
    `close()`, or at the end of a `with` block, all that it started ends as at a deadline.
    """

    def __init__(self, machine: Machine, command: str, timeout: float, rows: int, columns: int):
        setup = f"export TERM=${{TERM:-xterm}}; stty rows {rows} columns {columns} -echoctl"
        program = shlex.quote(f"{setup}; exec bash -c {shlex.quote(command)}")
        self._machine, self._command = machine, f"exec script -qefc {program} /dev/null"
        self._status = 0
        super().__init__(machine.name, timeout)

    def wait(self) -> int:
        """Wait until the program has ended by itself; what it still prints stays in `before`.

        :return: its exit status.
        :raise pexpect.TIMEOUT: if it runs longer than the terminal's `timeout`.
        :raise MachineError: if the machine died under it.
        """
        self.expect(EOF)
        self._thread.join()
        if self.error is not None:
            raise self.error
        return self._status

    def _run(self) -> None:
        self._status = self._machine.connection.run(
            self._command, None, stdin=self._typed(), sink=self._shown
        ).status


class ConsoleTerminal(Terminal):
    """A machine's serial console: what it prints from now on is shown.

    The machine's log and its `wait_for_console_text` lose nothing by it.

    :param console: what the machine prints.
    :param send: types into it.
    """

    def __init__(
        self,
        machine: str,
        console: Console,
        send: Callable[[bytes], None],
        timeout: float | None,
    ):
        self._console, self._send = console, send
        super().__init__(machine, timeout)
        console.follow(self._printed)

    def close(self) -> None:
        """Let go of it; may be called twice."""
        if not self.closed:
            self._console.unfollow(self._printed)
        super().close()

    def _printed(self, data: bytes) -> None:
        io_loop().asyncio.call_soon_threadsafe(self._shown, data)

    def _run(self) -> None:
        while data := self._theirs.recv(READ_SIZE):
            self._send(data)


def interact(
    machine: Machine, command: str, timeout: float, rows: int, columns: int
) -> Interaction:
    """Start a program on a terminal.

    :raise Unsupported: if the machine has no `script` (util-linux) to make the terminal.
    """
    if machine.look("command -v script").status != 0:
        why = "the machine has no `script` command (package util-linux or bsdutils)"
        raise Unsupported(machine.name, "interact", machine.backend, why)
    return Interaction(machine, command, timeout, rows, columns)
