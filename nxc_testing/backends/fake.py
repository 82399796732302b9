"""The fake backend: every machine is a bash of this host in a directory of its own.

It is for tests of what stands above backends, and an example of the smallest backend there is.
Nothing is answered from a script: commands run for real, and a machine is really killed, with
everything that was started in it; what they put into `$TMPDIR` goes with it. It gives no isolation:
machines are processes of this user, see the host's files and network, and have no init.
"""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from nxc_testing.backends import start_scripts
from nxc_testing.backends.base import Access, Boot, Channel, Trace
from nxc_testing.composition import MachinePlan, Plan
from nxc_testing.errors import ConnectionLost, DeploymentError, MachineDied
from nxc_testing.runs.journal import Record
from nxc_testing.session import LABEL_OWNER, Session
from nxc_testing.shell.loop import io_loop

MARK = "NXC_FAKE_MACHINE"
"""In the environment of everything that runs in a fake machine: the run and the machine."""

OWNER = "NXC_FAKE_OWNER"
"""Beside it: the run's owner."""

CONSOLE = "NXC_FAKE_CONSOLE"
"""The file that is the machine's console: what is written to it is printed there."""

KEEPER = """
syscall $ARGV[0] + 0, 36, 1, 0, 0, 0;
my $pid = fork // die "no process: $!";
exec qw(bash --noprofile --norc) if !$pid;
open STDIN, '<', '/dev/null';
open STDOUT, '>', '/dev/null';
$SIG{$_} = 'IGNORE' for qw(HUP INT QUIT TERM);
1 while wait != -1;
"""
"""Stands above a shell for as long as anything lives that was started by it. It is a child
subreaper (prctl(2), PR_SET_CHILD_SUBREAPER), so that nothing gets away from below it, whatever it
does with its environment, its session and its parent."""

PRCTL = {"x86_64": 157, "ppc64le": 171, "s390x": 172, "armv7l": 172, "i686": 172}
PRCTL_ELSEWHERE = 167
"""The system call's number, by machine; newer ones share one table."""

STOP_GRACE = 0.5
KILL_ROUNDS = 100


class FakeBackend:
    """Machines that are processes of this host."""

    name = "fake"
    settle = 0.2

    def unavailable(self) -> str | None:
        """What this host lacks; None if nothing."""
        missing = [tool for tool in ("bash", "perl") if shutil.which(tool) is None]
        return f"this host has no {' and no '.join(missing)}" if missing else None

    def node_type(self) -> type[FakeNode]:
        """What its machines are made of; it says what they can do."""
        return FakeNode

    def deploy(self, plan: Plan, session: Session) -> FakeDeployment:
        """Make a directory for every machine.

        :raise ConfigError: if one has a start script.
        """
        start_scripts.refuse(plan, self.name)
        directory = session.directory / f"fake-{session.number('fake deployment')}"
        record = session.record(
            self.name,
            directory.name,
            composition=plan.composition.name,
            machines=[machine.instance.name for machine in plan.own],
        )
        nodes = [FakeNode(machine, directory, session) for machine in plan.own]
        return FakeDeployment(nodes, lambda: session.forget(record))

    def traces(self) -> Sequence[Trace]:
        """The processes of this user's runs, as far as they have kept their environment."""
        return [
            Trace(
                run=environment[MARK].partition("/")[0],
                backend=self.name,
                owner=environment.get(OWNER, ""),
                machines=(environment[MARK].partition("/")[2].rpartition("-")[0],),
                things=(f"process {process.pid} ({process.name()})",),
                made=process.create_time(),
            )
            for process, environment in _marked()
        ]

    def reap(self, run: str, records: Sequence[Record]) -> list[str]:
        """Kill everything that runs in a run's machines.

        :raise DeploymentError: if something cannot be killed.
        """
        killed = _kill(lambda: _inside(lambda mark: mark.startswith(f"{run}/")))
        return [f"process {process.pid}" for process in killed]


class FakeDeployment:
    """Fake machines; they share nothing but the host.

    :param released: called when nothing of them is left.
    """

    def __init__(self, nodes: Sequence[FakeNode], released: Callable[[], None] = lambda: None):
        self._nodes, self._on_released = nodes, released

    @property
    def nodes(self) -> Sequence[FakeNode]:
        """In the order of the plan."""
        return self._nodes

    def access(self) -> Sequence[Access]:
        """A bash in the machine's directory, which ends with the machine."""
        return [Access(n.name, f"cd {n.directory} && {MARK}={n.mark} bash") for n in self._nodes]

    def close(self) -> None:
        """Kill everything that runs in the machines."""
        for node in self._nodes:
            node.release()
        self._on_released()


class FakeNode:
    """One fake machine: what carries its mark in its environment, and what that has started.

    :param root: where its directory is made.
    """

    def __init__(self, plan: MachinePlan, root: Path, session: Session):
        self._name = plan.instance.name
        self._addresses = dict.fromkeys(plan.instance.role.networks or ("lan",), "127.0.0.1")
        self.mark = f"{session.id}/{self._name}-{secrets.token_hex(8)}"
        self._marks = {MARK: self.mark, OWNER: session.labels[LABEL_OWNER]}
        self.directory = root / self._name
        self.directory.mkdir(parents=True, mode=0o700)
        self._boot: Boot | None = None
        self._sink: Callable[[bytes], None] = lambda _: None
        self._frozen: list[psutil.Process] = []
        self._power = threading.RLock()
        self._released = False
        self._console = self.directory / "console"
        os.mkfifo(self._console, 0o600)
        # Writable too, so that it never ends when a writer closes it.
        self._console_fd = os.open(self._console, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        io_loop().call(io_loop().asyncio.add_reader, self._console_fd, self._on_console)

    @property
    def name(self) -> str:
        """The host's name."""
        return self._name

    @property
    def addresses(self) -> Mapping[str, str]:
        """The host's own."""
        return self._addresses

    @property
    def boot(self) -> Boot | None:
        """The present boot, or the last one if the machine is off; None before the first."""
        return self._boot

    def watch_console(self, sink: Callable[[bytes], None]) -> None:
        """Send what is written to the machine's console to a function, and when it goes on."""
        self._sink = sink

    def start(self) -> None:
        """Power on; nothing happens to a machine that is on.

        :raise DeploymentError: if its deployment is closed.
        """
        with self._power:
            if self._released:
                raise DeploymentError(f"{self._name}: its deployment is closed")
            if self._boot is not None and not self._boot.ended.is_set():
                return
            self._frozen = []
            self._boot = Boot(self._boot.number + 1 if self._boot else 1)
            self._sink(f"fake machine {self._name}: boot {self._boot.number}\n".encode())

    def stop(self, timeout: float) -> bool:
        """Ask everything to end by SIGTERM, then kill what is left.

        :param timeout: seconds that the machine is given.
        """
        for process in self._processes():
            with contextlib.suppress(psutil.Error):
                process.terminate()
        deadline = time.monotonic() + min(timeout, STOP_GRACE)
        while self._processes() and time.monotonic() < deadline:
            time.sleep(0.01)
        self._end("it was shut down")
        return True

    def kill(self) -> None:
        """Kill everything that runs in the machine."""
        self._end("its power was cut")

    def reboot(self, timeout: float) -> None:
        """Stop and start.

        :raise MachineDied: if it is off.
        """
        self._require_boot()
        self.stop(timeout)
        self.start()

    def set_allow_reboot(self, allow: bool) -> None:
        """Nothing to note: without an init, nothing in the machine can ask for a reboot."""

    @property
    def reboots_by_itself(self) -> bool:
        """Never."""
        return False

    def freeze(self) -> None:
        """Stop every process.

        :raise MachineDied: if it is off.
        """
        self._require_boot()
        self._frozen = self._processes()
        for process in self._frozen:
            with contextlib.suppress(psutil.Error):
                process.suspend()

    def thaw(self) -> None:
        """Continue."""
        for process in self._frozen:
            with contextlib.suppress(psutil.Error):
                process.resume()
        self._frozen = []

    def open_channel(self) -> Channel:
        """A bash in the machine's directory.

        :raise MachineDied: if the machine is off.
        :raise ConnectionLost: if this host gives no bash.
        """
        with self._power:
            self._require_boot()
            try:
                process = subprocess.Popen(
                    ["perl", "-e", KEEPER, str(PRCTL.get(platform.machine(), PRCTL_ELSEWHERE))],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    cwd=self.directory,
                    env={
                        **os.environ,
                        **self._marks,
                        CONSOLE: str(self._console),
                        "TMPDIR": str(self.directory),
                    },
                    start_new_session=True,
                )
            except OSError as error:
                raise ConnectionLost(f"{self._name}: no bash on this host: {error}") from error
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None

        def close() -> None:
            for pipe in (stdin, stdout):
                with contextlib.suppress(OSError):
                    pipe.close()
            threading.Thread(target=process.wait, daemon=True).start()

        return Channel(stdout.fileno(), stdin.fileno(), close)

    def release(self) -> None:
        """Let go of everything; may be called twice."""
        with self._power:
            self.kill()
            if not self._released:
                self._released = True
                io_loop().call(self._close_console)

    def _require_boot(self) -> None:
        if self._boot is None:
            raise MachineDied(self._name, "it was never started")
        if self._boot.ended.is_set():
            raise MachineDied(self._name, self._boot.reason)

    def _processes(self) -> list[psutil.Process]:
        """What runs in the machine."""
        return _inside(lambda mark: mark == self.mark)

    def _end(self, reason: str) -> None:
        with self._power:
            boot = self._boot
            if boot is None or boot.ended.is_set():
                return
            _kill(self._processes)
            self._sink(f"fake machine {self._name}: {reason}\n".encode())
            boot.end(reason)

    # --- on the background loop

    def _on_console(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._sink(os.read(self._console_fd, 1 << 16))

    def _close_console(self) -> None:
        io_loop().asyncio.remove_reader(self._console_fd)
        os.close(self._console_fd)


def _marked() -> Iterator[tuple[psutil.Process, dict[str, str]]]:
    """The processes that have a mark in their environment, with that."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            environment = process.environ()
            if process.pid != os.getpid() and MARK in environment and _runs(process):
                yield process, environment


def _inside(ours: Callable[[str], bool]) -> list[psutil.Process]:
    """What runs in machines, from above to below: a shell comes before what it has started.

    :param ours: whether a mark is of one of the machines.
    """
    inside = {process.pid: process for process, mark in _marked() if ours(mark[MARK])}
    parents: dict[int, int] = {}
    children: dict[int, list[psutil.Process]] = {}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            parents[process.pid] = process.ppid()
            children.setdefault(process.ppid(), []).append(process)

    def has_one_above(pid: int) -> bool:
        # However far: the agent stands between, and has no mark any more when it has its name.
        while above := parents.get(pid, 0):
            if above in inside:
                return True
            pid = above
        return False

    level = [process for pid, process in inside.items() if not has_one_above(pid)]
    found: dict[int, psutil.Process] = {}
    while level:
        found |= {process.pid: process for process in level if _runs(process)}
        level = [child for process in level for child in children.get(process.pid, [])]
    return list(found.values())


def _kill(find: Callable[[], list[psutil.Process]]) -> list[psutil.Process]:
    """Kill processes until none is found any more.

    The shells come first: a machine without power does not tell how its commands ended. Those
    above them, below which all others can be found, come last.

    :return: those that were found.
    :raise DeploymentError: if one cannot be killed.
    """
    found: dict[int, psutil.Process] = {}
    for _ in range(KILL_ROUNDS):
        processes = find()
        if not processes:
            return list(found.values())
        there = {process.pid for process in processes}
        lower = [process for process in processes if _parent(process) in there]
        for process in lower or processes:
            found[process.pid] = process
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(0.01)
    raise DeploymentError(f"these processes cannot be killed: {[p.pid for p in find()]}")


def _parent(process: psutil.Process) -> int:
    try:
        return process.ppid()
    except psutil.Error:
        return 0


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
