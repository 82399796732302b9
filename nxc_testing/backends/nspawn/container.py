"""One boot of a machine: the process that holds it, what it says, and shells in it."""

from __future__ import annotations

import logging
import os
import resource
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from nxc_testing.backends.base import Channel
from nxc_testing.backends.nspawn import cgroups
from nxc_testing.errors import DeploymentError
from nxc_testing.shell.loop import io_loop

logger = logging.getLogger("nxc_testing.nspawn")

READ_SIZE = 1 << 16
LEADER = b"X_NSPAWN_LEADER_PID="
READY = b"READY=1"
START_TIMEOUT = 60.0
LAST_WORDS = 0.3
"""Seconds that an ended machine's console may take to be read to its end."""

REBOOTED = 133
"""The exit status of systemd-nspawn where the machine wants to be started again."""

NAMESPACES = {"mount": "mnt", "uts": "uts", "ipc": "ipc", "net": "net", "pid": "pid"}
NAMESPACES |= {"cgroup": "cgroup"}
"""nsenter's names of namespaces, and the kernel's."""

SHELL_PATH = (
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin"
)

LIMITS = (
    *("as", "core", "cpu", "data", "fsize", "memlock", "nice", "nofile", "nproc", "rss"),
    *("rtprio", "sigpending", "stack"),
)
"""The names of resource limits, for the kernel and prlimit(1) alike."""

UMASK = 0o022

# What runs by a shell belongs to the machine: it is limited, frozen and killed with it.
SHELL = """
while [ "$1" != -- ]; do
    echo $$ >"$1/cgroup.procs" || exit 1
    shift
done
shift
exec "$@"
"""

INNER_SHELL = "cd /; /bin/sh; exit"
"""Forks into the machine's PID namespace. Where nsenter(1) does that, it stops with its child, and
systemd stops everything before it kills it at a shutdown: nobody would take note of its end."""


class Container:
    """A process that holds a running machine.

    :param command: what it is.
    :param directory: the machine's, where it runs.
    :param environment: beside the notification socket.
    :param notify: a path for that socket.
    :param sink: gets what the console prints, on the background loop's thread.
    :param log: a file that the console is written to as well, so that the machine can go on
        when this process has ended; None if it need not.
    :raise OSError: if it cannot be started.
    :ivar leader: the machine's PID 1, as this host counts; 0 until it is known.
    """

    def __init__(
        self,
        command: Sequence[str],
        directory: Path,
        environment: Mapping[str, str],
        notify: Path,
        sink: Callable[[bytes], None],
        *,
        log: Path | None = None,
    ):
        self.leader = 0
        self._leader_fd = -1
        self._lock = threading.Lock()
        self._news = threading.Event()
        self._ready = False
        self._loop = io_loop()
        notify.unlink(missing_ok=True)
        with ExitStack() as stack:
            self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            stack.callback(self._notify.close)
            self._notify.bind(str(notify))
            read, write = os.pipe()
            stack.callback(os.close, read)
            try:
                variables = {**os.environ, **environment, "NOTIFY_SOCKET": str(notify)}
                self._process = _start(command, directory, variables, write, log)
            finally:
                os.close(write)
            stack.pop_all()
        self._console = _Reader(read, sink)
        # For as long as it lives: PID 1 waits where nobody reads what it tells.
        self._loop.call(self._loop.asyncio.add_reader, self._notify.fileno(), self._on_notify)

    def _on_notify(self) -> None:
        try:
            message = self._notify.recv(READ_SIZE)
        except OSError:
            return
        for line in message.split(b"\n"):
            if line.startswith(LEADER) and not self.leader:
                # Before anybody is told its number, so that it cannot be another's.
                with suppress(OSError):
                    leader = int(line.removeprefix(LEADER))
                    self._leader_fd = os.pidfd_open(leader)
                    self.leader = leader
            self._ready |= line == READY
        if self._ready and self.leader:
            self._news.set()

    def wait_ready(self) -> None:
        """Wait until the machine's PID 1 runs.

        :raise DeploymentError: if it ends before, or takes too long.
        """
        give_up = time.monotonic() + START_TIMEOUT
        while not self._news.wait(0.05):
            status = self._process.poll()
            if status is not None:
                self._console.drained.wait(LAST_WORDS)
                raise DeploymentError(
                    f"it ended with status {status}:\n{self._console.beginning}".rstrip()
                )
            if time.monotonic() > give_up:
                raise DeploymentError(f"its PID 1 does not run after {START_TIMEOUT:.0f} s")

    def wait(self) -> int:
        """Wait for the end of the process, and until its console is read.

        :return: its exit status.
        """
        status = self._process.wait()
        self._console.drained.wait(LAST_WORDS)
        return status

    def signal(self, number: int) -> None:
        """Send a signal to the machine's PID 1, if that lives."""
        with self._lock, suppress(OSError):
            if self._leader_fd >= 0:
                signal.pidfd_send_signal(self._leader_fd, number)

    def open_shell(self, capabilities: Sequence[str], log: Path) -> Channel:
        """A root shell in the machine.

        :param capabilities: the most that it may have.
        :param log: what it complains goes there.
        :raise OSError: if the machine is gone.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = self._enter(theirs.fileno(), capabilities, log)
        except BaseException:
            ours.close()
            raise
        ours.setblocking(False)

        def close() -> None:
            with suppress(OSError):
                ours.shutdown(socket.SHUT_RDWR)
            ours.close()
            threading.Thread(target=process.wait, name="nxc-shell-end", daemon=True).start()

        return Channel(ours.fileno(), ours.fileno(), close)

    def _enter(self, line: int, capabilities: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        """Start a shell in the machine, whose input and output are a descriptor."""
        groups = cgroups.of_process(self.leader)
        bounds = ",".join(("-all", *(f"+{name.lower()}" for name in capabilities)))
        spaces = {}
        with ExitStack() as stack:
            errors = stack.enter_context(log.open("ab"))
            for option, name in NAMESPACES.items():
                # Opened here: nsenter may not, with no more capabilities than the shell has.
                spaces[option] = os.open(f"/proc/{self.leader}/ns/{name}", os.O_RDONLY)
                stack.callback(os.close, spaces[option])
            # It lives, so the number was its own all the time.
            signal.pidfd_send_signal(self._leader_fd, 0)
            return subprocess.Popen(
                [
                    *("/bin/sh", "-c", SHELL, "shell", *map(str, groups), "--"),
                    *("prlimit", *_limits(self.leader)),
                    *("setpriv", f"--bounding-set={bounds}", "nsenter"),
                    *(f"--{name}=/proc/self/fd/{fd}" for name, fd in spaces.items()),
                    *("--no-fork", "/bin/sh", "-c", INNER_SHELL),
                ],
                env={"PATH": SHELL_PATH, "HOME": "/root", "USER": "root"},
                cwd="/",
                stdin=line,
                stdout=line,
                stderr=errors,
                pass_fds=tuple(spaces.values()),
                start_new_session=True,
                umask=UMASK,
            )

    def close(self) -> None:
        """End its process, if it has not ended, and let go of it."""
        self._process.kill()
        self._process.wait()
        self._loop.call(self._hang_up)
        with self._lock:
            if self._leader_fd >= 0:
                os.close(self._leader_fd)
                self._leader_fd = -1

    def _hang_up(self) -> None:
        self._loop.asyncio.remove_reader(self._notify.fileno())
        self._notify.close()
        self._console.end()


def _limits(process: int) -> list[str]:
    """A process' resource limits, as prlimit(1) sets them: those of the driver are its own."""
    options = []
    for name in LIMITS:
        pair = resource.prlimit(process, getattr(resource, f"RLIMIT_{name.upper()}"))
        soft, hard = ("unlimited" if n == resource.RLIM_INFINITY else n for n in pair)
        options.append(f"--{name}={soft}:{hard}")
    return options


def _start(
    command: Sequence[str],
    directory: Path,
    environment: Mapping[str, str],
    output: int,
    log: Path | None,
) -> subprocess.Popen[bytes]:
    tee = None
    if log:
        # It goes on when its other output is closed, as systemd-nspawn does not.
        tee = subprocess.Popen(
            ["tee", "--append", "--output-error=warn-nopipe", str(log)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
    try:
        return subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=tee.stdin if tee else output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    finally:
        if tee and tee.stdin:
            tee.stdin.close()
            threading.Thread(target=tee.wait, name="nxc-tee-end", daemon=True).start()


class _Reader:
    """Gives what comes out of a pipe to a function, as it comes.

    :ivar drained: set when there is no more to come.
    :ivar beginning: the first of what came, for who explains a start that failed.
    """

    def __init__(self, pipe: int, sink: Callable[[bytes], None]):
        os.set_blocking(pipe, False)
        self._pipe, self._sink = pipe, sink
        self._beginning = b""
        self.drained = threading.Event()
        self._loop = io_loop()
        self._loop.call(self._loop.asyncio.add_reader, pipe, self._readable)

    @property
    def beginning(self) -> str:
        return self._beginning.decode(errors="replace")

    def _readable(self) -> None:
        try:
            data = os.read(self._pipe, READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.end()
            return
        if len(self._beginning) < READ_SIZE:
            self._beginning += data
        try:
            self._sink(data)
        except Exception:
            logger.exception("a console's reader failed")

    def end(self) -> None:
        """Read no more; may be called twice, on the loop's thread."""
        if not self.drained.is_set():
            self._loop.asyncio.remove_reader(self._pipe)
            os.close(self._pipe)
            self.drained.set()
