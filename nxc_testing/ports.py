"""Waiting for TCP ports and UNIX sockets, seen from inside a machine.

bash and perl, which every machine has, do the looking: no `nc` is needed.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from nxc_testing.errors import MachineUsageError
from nxc_testing.waiting import Deadline, Duration

if TYPE_CHECKING:
    from nxc_testing.waits import Waits

CONNECT_TIMEOUT = 5.0
_UNIX = "use Socket; socket(S, AF_UNIX, {kind}, 0) && connect(S, sockaddr_un(shift)) or exit 1"


def wait_for_port(
    machine: Waits, port: int, addr: str, timeout: Duration | None, *, is_open: bool
) -> None:
    """Wait until a TCP port answers, or no longer does; an unreachable host does not answer.

    :raise WaitTimeout: with who listens.
    """
    number = _number(port)
    probe = f"exec 3<>/dev/tcp/{shlex.quote(addr)}/{number}"

    def done(deadline: Deadline) -> bool:
        answers = machine.look(probe, Deadline(deadline.look(CONNECT_TIMEOUT))).status == 0
        return answers == is_open

    machine.wait(
        f"TCP port {number} on {addr} to be {'open' if is_open else 'closed'}",
        done,
        timeout,
        evidence=lambda: _listeners(machine),
    )


def wait_for_unix_socket(
    machine: Waits, path: str, is_datagram: bool, timeout: Duration | None
) -> None:
    """Wait until something listens on a UNIX socket."""
    script = _UNIX.format(kind="SOCK_DGRAM" if is_datagram else "SOCK_STREAM")
    probe = f"perl -e {shlex.quote(script)} {shlex.quote(path)}"
    machine.wait(
        f"UNIX socket {path}",
        lambda deadline: machine.look(probe, deadline).status == 0,
        timeout,
        evidence=lambda: machine.seen_by(f"ls -la {shlex.quote(path)} 2>&1"),
    )


def _number(port: object) -> int:
    """A TCP port's number; scripts also write it as text."""
    if isinstance(port, (int, str)) and not isinstance(port, bool):
        text = str(port)
        if text.isdecimal() and 0 < int(text) < 65536:
            return int(text)
    raise MachineUsageError(f"{port!r} is not a TCP port (a number from 1 to 65535)")


def _listeners(machine: Waits) -> str:
    seen = machine.look("ss -Hltnp 2>/dev/null || netstat -ltn", Deadline(10)).stdout
    text = seen.decode(errors="replace").rstrip()
    return "  listening: " + (text.replace("\n", "\n    ") if text else "nothing")
