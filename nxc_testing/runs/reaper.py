"""The reaper: a process beside every run that releases what the run had, should it die.

A run that is killed with SIGKILL cannot clean up after itself, so somebody else has to. The
reaper waits for one of two things on a socket from the run: a farewell, or the end of the
stream without one. In the second case the run is dead, and the reaper asks the backends to
release everything that bears the run's labels or stands in its journal, and removes the run's
directory. (Ryuk does the same for the containers of testcontainers.)

This file runs as a script. Until it has to work it imports nothing that costs.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time
import traceback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from nxc_testing.runs.leftovers import Outcome

FAREWELL = b"."
BEGIN = b">"
READY = b"!"
PATH = "NXC_REAPER_PATH"
"""The variable that has the run's `sys.path`, for the same backends."""

PAUSE = 0.25
PATIENCE = 120.0
"""Seconds after which the reaper gives up; `nxc-test reap` can go on later."""

LOG = "reaper.log"


def main() -> None:
    """Wait for the end of a run, and see to what it leaves."""
    number, run, directory, owner = sys.argv[1:]
    with socket.socket(fileno=int(number)) as line:
        try:
            line.sendall(READY)
        except OSError:
            # It is over already.
            pass
        word = wait(line, int(owner.partition(":")[0]))
        if word == FAREWELL:
            return
        sys.path += [entry for entry in os.environ[PATH].split(os.pathsep) if entry not in sys.path]
        try:
            reap(run, directory, in_flight=word != BEGIN)
        except Exception:
            note(directory, traceback.format_exc())


def wait(line: socket.socket, owner: int) -> bytes:
    """Wait until the run says something, or is dead.

    A process that the run has forked may hold its end of the socket for longer than the run
    lives; so its death is watched too, where the kernel can (Linux 5.3).

    :param owner: the run's process.
    :return: what it said: FAREWELL, BEGIN, or nothing because it is dead.
    """
    poll = select.poll()
    poll.register(line, select.POLLIN)
    try:
        poll.register(os.pidfd_open(owner), select.POLLIN)
    except OSError:
        # An older kernel; or it is dead, and the stream has ended.
        pass
    poll.poll()
    try:
        return line.recv(1, socket.MSG_DONTWAIT)
    except OSError:
        return b""


def reap(run: str, directory: str, *, in_flight: bool) -> None:
    """Release all that a run has, until nothing turns up any more.

    :param in_flight: whether an engine may still be making something that the run asked for.
    """
    from pathlib import Path  # noqa: PLC0415 (only now: see above)

    from nxc_testing.runs import leftovers  # noqa: PLC0415
    from nxc_testing.runs.places import remove_tree  # noqa: PLC0415

    path = Path(directory)
    leftovers.claim(path)
    if leftovers.may_have_something(path):
        problems = sweep_until_quiet(lambda: leftovers.release(run, path), in_flight)
        if problems:
            note(directory, "\n".join(problems))
            return
    remove_tree(path)


def sweep_until_quiet(sweep: Callable[[], Outcome], in_flight: bool) -> list[str]:
    """Sweep until nothing turns up any more.

    :return: what is still in the way when patience ends.
    """
    began = quiet_since = time.monotonic()
    slowest = 0.0
    while True:
        asked = time.monotonic()
        outcome = sweep()
        now = time.monotonic()
        slowest = max(slowest, now - asked)
        if outcome.removed or outcome.problems:
            quiet_since = now
        # The slower an engine is, the later may come what it was making.
        settle = outcome.settle + slowest if in_flight else 0
        quiet = not outcome.problems and now - quiet_since >= settle
        if quiet or now - began > PATIENCE:
            return outcome.problems
        time.sleep(PAUSE)


def note(directory: str, text: str) -> None:
    """Leave a word on what could not be done, for whoever looks into the run's directory."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    try:
        log = os.open(os.path.join(directory, LOG), flags, 0o600)
    except FileNotFoundError:
        return
    os.write(log, f"{text}\n".encode())
    os.close(log)


if __name__ == "__main__":
    main()
