"""Programs that want a terminal, driven by pexpect through a pseudo-terminal in the machine."""

from __future__ import annotations

import contextlib
import secrets
import shlex
import socket
import threading
from typing import TYPE_CHECKING

from pexpect import fdpexpect

from nxc_testing.errors import ShellLost, Unsupported
from nxc_testing.shell.loop import io_loop
from nxc_testing.shell.wire import READ_SIZE, Wire

if TYPE_CHECKING:
    from nxc_testing.machine import Machine

    Spawn = fdpexpect.fdspawn[str]
else:
    Spawn = fdpexpect.fdspawn

START_TIMEOUT = 60.0

# `script` makes the terminal. Left to itself it would go on after the channel's end, with a program
# that reads no input; killed, it takes the terminal with it, which hangs up the program. With job
# control jobs do not ignore SIGINT, or Ctrl-C would do nothing. The mark comes first: a shell that
# reads ahead would swallow what is typed before it.
TERMINAL = """\
exec 3<&0 4<> <(:)
printf %s {mark}
set -m
script -qefc {program} /dev/null <&4 3<&- 4<&- & terminal=$!
exec 2>/dev/null
cat <&3 >&4 & input=$!
exec 3<&- 4<&-
wait -n $terminal $input
kill -KILL $terminal $input
wait
"""


class Interaction(Spawn):
    """A program on a terminal in a machine; pexpect's `expect`, `sendline` and so on work.

    The program and its terminal end with `close()`, or at the end of a `with` block.

    :raise ShellLost: if the terminal does not come up.
    """

    def __init__(self, machine: Machine, command: str, timeout: float, rows: int, columns: int):
        self._ours, self._theirs = socket.socketpair()
        self._theirs.setblocking(False)
        self._mark = secrets.token_hex(8)
        self._started = threading.Event()
        self._unread = bytearray()
        self._over = False
        setup = f"stty rows {rows} columns {columns} -echoctl"
        program = shlex.quote(f"{setup}; exec bash -lc {shlex.quote(command)}")
        terminal = TERMINAL.format(mark=self._mark, program=program)
        self._wire = Wire(machine.node.open_channel(), self._from_machine, self._ended)
        self._wire.write(f"exec bash -c {shlex.quote(terminal)}\n".encode())
        super().__init__(
            self._ours.fileno(), timeout=timeout, encoding="utf-8", codec_errors="replace"
        )
        if not self._started.wait(START_TIMEOUT) or self._over:
            said = bytes(self._unread).decode(errors="replace").strip()
            self.close()
            raise ShellLost(f"{machine.name}: no terminal for `{command}`: {said or 'no answer'}")

    def close(self) -> None:
        """End the program by hanging up its terminal; may be called twice."""
        self._wire.close()
        self._ours.close()
        self.child_fd = -1
        self.closed = True

    def __exit__(self, *_: object) -> None:
        """End the program."""
        self.close()

    # --- on the background loop

    def _from_machine(self, data: bytes) -> None:
        self._unread += data
        if not self._started.is_set():
            _, mark, rest = self._unread.partition(self._mark.encode())
            if not mark:
                return
            self._unread = rest
            io_loop().asyncio.add_reader(self._theirs, self._from_test)
            self._started.set()
        self._pass_on()

    def _pass_on(self) -> None:
        try:
            del self._unread[: self._theirs.send(self._unread)]
        except BlockingIOError:
            pass
        except OSError:
            self._unread.clear()
        loop = io_loop().asyncio
        if self._unread:
            loop.add_writer(self._theirs, self._pass_on)
        else:
            loop.remove_writer(self._theirs)
            if self._over:
                self._theirs.close()

    def _from_test(self) -> None:
        with contextlib.suppress(OSError):
            if data := self._theirs.recv(READ_SIZE):
                self._wire.write(data)
                return
        io_loop().asyncio.remove_reader(self._theirs)

    def _ended(self) -> None:
        self._over = True
        io_loop().asyncio.remove_reader(self._theirs)
        if self._started.is_set():
            self._pass_on()
        else:
            self._theirs.close()
            self._started.set()


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
