"""A run's hold on its reaper: as long as it holds, the reaper waits."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from nxc_testing.errors import InfraError
from nxc_testing.runs import reaper
from nxc_testing.runs.owner import Owner

READY_TIMEOUT = 30.0
WORK_TIMEOUT = 10.0

# In the background of a shell it becomes nobody's child: whoever waits for all children of the
# run, or kills them, does not meet it. No signal to a process group or a session reaches it, nor
# one from a manager of services that asks all processes to end.
LAUNCH = """trap '' HUP INT QUIT TERM; "$@" </dev/null >/dev/null 2>&1 & echo $!"""


class Guard:
    """Starts a reaper for a run, and again should it have ended.

    The reaper sees the end of this process, however it comes, by the end of a socket that only
    this process holds.

    :param run: the run's id.
    :param directory: its directory, which need not exist yet.
    :raise InfraError: if no process can be started.
    :ivar pid: the reaper's.
    """

    def __init__(self, run: str, directory: Path, owner: Owner):
        self._run, self._directory, self._owner = run, directory, owner
        self._lock = threading.Lock()
        self._dismissed = self._ready = False
        self._socket, self.pid = self._start()

    def ensure(self) -> None:
        """See that the reaper is there, before something is made that it may have to release.

        :raise InfraError: if it does not come up.
        """
        with self._lock:
            if self._dismissed:
                return
            if self._ready and self._readable(0):
                self._socket.close()
                self._socket, self.pid = self._start()
                self._ready = False
            if not self._ready:
                self._ready = self._readable(READY_TIMEOUT) and self._heard() == reaper.READY
            if not self._ready:
                raise InfraError(
                    f"run {self._run}: its reaper does not come up: try `{' '.join(COMMAND)}`"
                )

    def dismiss(self) -> None:
        """Tell the reaper that there is nothing to do; may be called twice."""
        self._tell(reaper.FAREWELL)

    def hand_over(self) -> None:
        """Let the reaper do its work now, and wait for its end for some seconds."""
        self._tell(reaper.BEGIN)

    def _tell(self, word: bytes) -> None:
        with self._lock:
            if self._dismissed:
                return
            self._dismissed = True
            # It may have been killed, or take longer.
            with self._socket, suppress(OSError):
                self._socket.settimeout(WORK_TIMEOUT)
                self._socket.sendall(word)
                while word == reaper.BEGIN and self._socket.recv(1):
                    pass

    def _start(self) -> tuple[socket.socket, int]:
        ours, theirs = socket.socketpair()
        number = theirs.fileno()
        arguments = [str(number), self._run, str(self._directory), str(self._owner)]
        try:
            with theirs:
                done = subprocess.run(
                    ["/bin/sh", "-c", LAUNCH, "nxc-reaper", *COMMAND, *arguments],
                    env={**os.environ, reaper.PATH: os.pathsep.join(sys.path)},
                    cwd="/",
                    pass_fds=[number],
                    start_new_session=True,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    check=True,
                )
        except (OSError, subprocess.CalledProcessError) as error:
            ours.close()
            raise InfraError(f"run {self._run}: its reaper cannot be started: {error}") from error
        return ours, int(done.stdout)

    def _readable(self, timeout: float) -> bool:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(timeout * 1000))

    def _heard(self) -> bytes:
        try:
            return self._socket.recv(1)
        except OSError:
            return b""


# By its path, so that nothing that a run has put before the standard library keeps it from
# starting.
COMMAND = (sys.executable, "-P", reaper.__file__)
