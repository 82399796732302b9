"""Runs of pytest in processes of their own, to be killed, and a look at what they leave."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from nxc_testing import images

BASE = Path(images.__file__).parent / "recipes" / "base.toml"

REAPED = 10.0
"""Seconds within which nothing may be left of a run that was killed."""

WATCHED = 30.0
"""Seconds within which the reaper itself goes: it looks out for what an engine was about to make,
the longer the slower the engine is."""

LONG = f"86399.{secrets.randbelow(10**9)}"
"""The length of a sleep that a test leaves running; nobody else sleeps as long."""

BIN = Path(sys.executable).parent


def command_line(process: psutil.Process) -> str:
    """What a process runs; empty if it has ended meanwhile."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def until(what: Callable[[], object], timeout: float, doing: str) -> None:
    """Wait for something."""
    give_up = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < give_up, f"not within {timeout:.0f} s: {doing}"
        time.sleep(0.05)


@dataclass
class Run:
    """A pytest process in a project."""

    lab: RunLab
    process: subprocess.Popen[bytes]
    output: Path

    @property
    def text(self) -> str:
        """What it has printed."""
        return self.output.read_text(errors="replace")

    @property
    def ids(self) -> set[str]:
        """The ids of its sessions: one, or one for each worker."""
        return set(re.findall(r"run (nxc-[0-9a-f]{8})", self.text))

    def reaches(self, place: str, timeout: float = 60) -> None:
        """Wait until its test has come to `reached(place)`."""

        def there() -> bool:
            assert self.process.poll() is None, f"it ended before it came to {place}:\n{self.text}"
            return (self.lab.root / place).exists()

        until(there, timeout, f"the run comes to {place}")

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal, and wait for its end."""
        self.process.send_signal(number)
        self.ends()

    def ends(self, timeout: float = 60) -> int:
        """Wait for its end.

        :return: its exit status.
        """
        return self.process.wait(timeout)


@dataclass
class RunLab:
    """A project with compositions, and a runtime directory that only its runs use.

    :ivar runtime: named in the environment of everything that its runs start.
    :ivar ids: those of its runs that were seen.
    """

    root: Path
    runtime: Path
    backend: str = "fake"
    runs: list[Run] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)

    def composition(self, test: str, *, name: str = "a", more: str = "") -> None:
        """Write a composition with machine `one`, and a module of tests beside it.

        In the tests `reached(place)` tells that a place is reached, and `linger()` waits there.
        """
        directory = self.root / name
        directory.mkdir()
        image = "none" if self.backend == "fake" else str(BASE)
        (directory / "composition.toml").write_text(
            f'[composition]\nimage = "{image}"\n[roles.one]\n{more}'
        )
        head = (
            "import ctypes, os, pathlib, pytest, signal, subprocess, sys, time\n"
            f"def reached(place): pathlib.Path({str(self.root)!r}, place).touch()\n"
            "def linger():\n    reached('there')\n    time.sleep(600)\n"
        )
        (directory / f"test_{name}.py").write_text(head + test)

    def start(self, *arguments: str, under: Sequence[str] = ()) -> Run:
        """Start pytest in the project.

        :param under: a command that starts it.
        """
        output = self.root / f"output-{len(self.runs)}"
        with output.open("wb") as out:
            process = subprocess.Popen(
                [
                    *under,
                    *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-s"),
                    *(f"--nxc-backend={self.backend}", *arguments),
                ],
                cwd=self.root,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        run = Run(self, process, output)
        self.runs.append(run)
        return run

    @property
    def environment(self) -> dict[str, str]:
        """That of all that the lab starts."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("NXC_")}
        return {**own, "XDG_RUNTIME_DIR": str(self.runtime)}

    def nxc_test(self, *arguments: str) -> str:
        """Run `nxc-test`, which must succeed.

        :return: what it prints.
        """
        done = self.try_nxc_test(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def try_nxc_test(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `nxc-test`."""
        command = [BIN / "nxc-test", *arguments]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False
        )

    def processes(self) -> list[psutil.Process]:
        """Everything that runs and was started in the lab, however far down."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                environment = process.environ()
                ours = environment.get("XDG_RUNTIME_DIR") == str(self.runtime)
                # Machines of QEMU have an environment of their own.
                owner = environment.get("NXC_QEMU_OWNER", "").partition(":")[0]
                ours = ours or owner in {str(run.process.pid) for run in self.runs}
                # It may have another environment.
                ours = ours or LONG in process.cmdline()
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def directories(self) -> list[Path]:
        """The directories of runs."""
        return sorted(self.runtime.glob("nxc_testing/runs/*"))

    def left(self) -> list[str]:
        """What there is of the lab's runs, in words."""
        processes = []
        for process in self.processes():
            if line := command_line(process):
                processes.append(f"process {process.pid}: {line}")
        self.ids |= {path.name for path in self.directories()}
        self.ids |= {one for run in self.runs for one in run.ids}
        of_backend = {"docker": self._in_engine, "nspawn": self._in_kernel}.get(self.backend, list)
        return [*processes, *map(str, self.directories()), *of_backend(), *self._on_disk()]

    def _in_kernel(self) -> list[str]:
        """Control groups and network devices, which nspawn's machines have."""
        left = []
        for id_ in self.ids:
            for kind, where, name in (
                ("control group", "/sys/fs/cgroup", f"{id_}*"),
                ("control group", "/sys/fs/cgroup", f"*/{id_}*"),
                ("network namespace", "/run/netns", f"{id_}*"),
                ("network device", "/sys/class/net", f"nx{id_[4:]}*"),
            ):
                left += [f"{kind} {path}" for path in Path(where).glob(name)]
        # What is mounted for machines is in namespaces of theirs.
        mounts = Path("/proc/self/mountinfo").read_text()
        return [*left, *(f"mount of {id_}" for id_ in self.ids if id_ in mounts)]

    def _in_engine(self) -> list[str]:
        # The label says whose a thing is before the run has told its id.
        mine = tuple(f"{run.process.pid}:" for run in self.runs)
        owner = '{{.Label "nxc_testing.owner"}}'
        left = []
        for kind, name in (("ps -a", "Names"), ("network ls", "Name"), ("volume ls", "Name")):
            command = ["docker", *kind.split(), "--filter", "label=nxc_testing.run", "--format"]
            for line in output_of(*command, f"{owner} {kind} {{{{.{name}}}}}").splitlines():
                if line.startswith(mine):
                    left.append(line)
        return left

    def _on_disk(self) -> list[str]:
        directories = list(Path("/var/tmp").glob("nxc-*-*"))
        devices = json.loads(output_of("losetup", "--list", "--json") or '{"loopdevices": []}')
        files = [device["back-file"] for device in devices["loopdevices"]]
        things = map(str, [*directories, *files])
        return [thing for thing in things if any(id_ in thing for id_ in self.ids)]

    def all_is_gone(self) -> None:
        """Fail unless nothing is left of the lab's runs soon."""
        began = time.monotonic()
        while left := self.left():
            waited = time.monotonic() - began
            watching = all("reaper.py" in thing or "/runs/" in thing for thing in left)
            limit = WATCHED if watching else REAPED
            assert waited < limit, f"left after {waited:.0f} s: {left}\n{self.logs()}"
            time.sleep(0.1)

    def logs(self) -> str:
        """What reapers have complained about."""
        return "".join(path.read_text() for path in self.runtime.rglob("reaper.log"))

    def clear(self) -> None:
        """End what a failed test has left."""
        for run in self.runs:
            if run.process.poll() is None:
                run.kill()
        for process in self.processes():
            with suppress(psutil.Error):
                process.kill()


def output_of(*command: str) -> str:
    """What a command prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@contextmanager
def run_lab(root: Path, runtime: Path, backend: str) -> Iterator[RunLab]:
    """A lab, cleared at the end."""
    lab = RunLab(root, runtime, backend)
    try:
        yield lab
    finally:
        lab.clear()
