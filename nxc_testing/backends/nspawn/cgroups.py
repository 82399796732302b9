"""The control groups of a machine: one in each hierarchy of the host, version 1 or 2."""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nxc_testing.errors import DeploymentError

PERIOD = 100_000
"""Microseconds in which a machine has its share of the processors."""

FREEZE_ROUNDS = KILL_ROUNDS = 200
REMOVE_ROUNDS = 500
PAUSE = 0.01

ORDINARY_DEVICES = (
    # mknod(2) of anything, and what every program needs: null, zero, full, random, urandom, tty,
    # console, ptmx, terminals, tun.
    *("c *:* m", "b *:* m", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm"),
    *("c 5:0 rwm", "c 5:1 rwm", "c 5:2 rwm", "c 136:* rwm", "c 10:200 rwm"),
)


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted hierarchy of control groups.

    :ivar controllers: of version 1, those that it has; `*` for the whole of version 2.
    """

    mount: Path
    controllers: frozenset[str]

    @property
    def unified(self) -> bool:
        """Whether it is of version 2."""
        return "*" in self.controllers


def hierarchies() -> list[Hierarchy]:
    """Those of this host, each once."""
    found: dict[frozenset[str], Hierarchy] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        # proc(5): the mount point is the fifth field, and behind the dash come type, source and
        # the options of the superblock.
        mount, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        if kind == "cgroup2":
            controllers = frozenset("*")
        elif kind == "cgroup":
            controllers = frozenset(options.split(",")) - {"rw", "ro", "xattr"}
        else:
            continue
        found.setdefault(controllers, Hierarchy(Path(mount.split(" ")[4]), controllers))
    return list(found.values())


def limits_devices() -> bool:
    """Whether groups of this host can tell which devices their processes may open."""
    return any("devices" in one.controllers for one in hierarchies())


class Group:
    """A machine's group in every hierarchy.

    :param name: unique on the host.
    """

    def __init__(self, name: str):
        self.name = name
        self._hierarchies = hierarchies()

    @property
    def directories(self) -> list[Path]:
        """Its directory in each hierarchy."""
        return [one.mount / self.name for one in self._hierarchies]

    def make(self) -> None:
        """Make what of it is missing.

        :raise DeploymentError: if this host does not let us.
        """
        try:
            for one in self._hierarchies:
                directory = one.mount / self.name
                directory.mkdir(exist_ok=True)
                for file in ("cpuset.cpus", "cpuset.mems") if "cpuset" in one.controllers else ():
                    # Without these no process can be in it.
                    (directory / file).write_text((one.mount / file).read_text())
        except OSError as error:
            raise DeploymentError(f"control group {self.name}: {error}") from error

    def limit_memory(self, size: int) -> None:
        """Give its processes no more memory, and no swap beside it.

        :param size: bytes.
        :raise DeploymentError: if this host's control groups cannot.
        """
        directory = self._with("memory")
        if (directory / "memory.max").exists():
            self._write(directory / "memory.max", str(size))
            swap, rest = directory / "memory.swap.max", "0"
        else:
            self._write(directory / "memory.limit_in_bytes", str(size))
            swap, rest = directory / "memory.memsw.limit_in_bytes", str(size)
        if swap.exists():
            self._write(swap, rest)

    def limit_cpus(self, count: int) -> None:
        """Give its processes no more time than so many processors have.

        :raise DeploymentError: if this host's control groups cannot.
        """
        directory = self._with("cpu")
        if (directory / "cpu.max").exists():
            self._write(directory / "cpu.max", f"{count * PERIOD} {PERIOD}")
        else:
            self._write(directory / "cpu.cfs_period_us", str(PERIOD))
            self._write(directory / "cpu.cfs_quota_us", str(count * PERIOD))

    def allow_devices(self, devices: Iterable[str]) -> None:
        """Let its processes open the ordinary devices and some more, where this can be told.

        Version 2 has no file for it: see `limits_devices`.

        :param devices: paths on the host.
        """
        for one in self._hierarchies:
            if "devices" in one.controllers:
                directory = one.mount / self.name
                self._write(directory / "devices.deny", "a")
                for rule in (*ORDINARY_DEVICES, *map(_rule, devices)):
                    self._write(directory / "devices.allow", rule)

    def freeze(self, frozen: bool) -> None:
        """Stop all its processes, or let them continue; returns when it is so.

        :raise DeploymentError: if this host's control groups cannot.
        """
        directory = self._with("freezer")
        if (directory / "cgroup.freeze").exists():
            self._write(directory / "cgroup.freeze", str(int(frozen)))
            state, wanted = directory / "cgroup.events", f"frozen {int(frozen)}"
        else:
            state, wanted = directory / "freezer.state", "FROZEN" if frozen else "THAWED"
            self._write(state, wanted)
        for _ in range(FREEZE_ROUNDS):
            if wanted in state.read_text():
                return
            time.sleep(PAUSE)
        raise DeploymentError(f"control group {self.name} does not become {wanted}")

    def out_of_memory(self) -> int:
        """How often the kernel has killed something in it for want of memory."""
        for directory in self.directories:
            for name in ("memory.events", "memory.oom_control"):
                with suppress(OSError):
                    for line in (directory / name).read_text().splitlines():
                        key, _, value = line.partition(" ")
                        if key == "oom_kill":
                            return int(value)
        return 0

    def processes(self) -> set[int]:
        """All that run in it."""
        found: set[int] = set()
        for directory in self.directories:
            # A walk takes no offence at what goes away meanwhile.
            for path, _, _ in os.walk(directory):
                with suppress(OSError):
                    processes = Path(path, "cgroup.procs").read_text()
                    found |= {int(line) for line in processes.split()}
        # Of another PID namespace than ours.
        return found - {0}

    def kill(self) -> list[int]:
        """Kill all that run in it, until none does.

        :return: those that did.
        :raise DeploymentError: if one stays.
        """
        killed: set[int] = set()
        # At once, as power goes: nothing of it may see the end of something else, and tell.
        with suppress(DeploymentError, OSError):
            self.freeze(True)
        for _ in range(KILL_ROUNDS):
            processes = self.processes()
            if not processes:
                return sorted(killed)
            killed |= processes
            for process in processes:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            # Only then: what was frozen does nothing any more. Somebody else may have removed it.
            with suppress(DeploymentError, OSError):
                self.freeze(False)
            time.sleep(PAUSE)
        raise DeploymentError(f"these processes cannot be killed: {sorted(self.processes())}")

    def remove(self) -> bool:
        """Remove it; nothing may run in it. Several processes may do so at once.

        :return: whether there was something to remove.
        :raise DeploymentError: if it stays.
        """
        there = [directory for directory in self.directories if directory.exists()]
        for directory in there:
            _remove(directory)
        return bool(there)

    def _with(self, controller: str) -> Path:
        """Its directory in the hierarchy that has a controller.

        :raise DeploymentError: if none has.
        """
        for one in self._hierarchies:
            if controller in one.controllers:
                return one.mount / self.name
        for one in self._hierarchies:
            if one.unified and (controller == "freezer" or self._enable(one, controller)):
                return one.mount / self.name
        raise DeploymentError(
            f"the {controller} controller of control groups is not to be had on this host: "
            "take the limit out"
        )

    def _enable(self, hierarchy: Hierarchy, controller: str) -> bool:
        """See that a group of version 2 has a controller."""
        with suppress(OSError):
            (hierarchy.mount / "cgroup.subtree_control").write_text(f"+{controller}")
        there = (hierarchy.mount / self.name / "cgroup.controllers").read_text()
        return controller in there.split()

    def _write(self, file: Path, text: str) -> None:
        try:
            file.write_text(text)
        except OSError as error:
            raise DeploymentError(f"{file}: {text}: {error.strerror}") from error


def named(prefix: str) -> Iterator[str]:
    """The names of groups of the host that begin with something."""
    names = {path.name for one in hierarchies() for path in one.mount.glob(f"{prefix}*")}
    yield from sorted(names)


def of_process(process: int) -> list[Path]:
    """The directories of the groups that a process is in."""
    found = []
    mounted = hierarchies()
    for line in Path(f"/proc/{process}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        wanted = frozenset(controllers.split(",")) if controllers else frozenset("*")
        found += [one.mount / path.lstrip("/") for one in mounted if one.controllers == wanted]
    return found


def _rule(device: str) -> str:
    status = os.stat(device)
    kind = "b" if stat.S_ISBLK(status.st_mode) else "c"
    return f"{kind} {os.major(status.st_rdev)}:{os.minor(status.st_rdev)} rwm"


def _remove(directory: Path) -> None:
    for _ in range(REMOVE_ROUNDS):
        if not directory.exists():
            return
        for path, _, _ in os.walk(directory, topdown=False):
            # A process that has ended may still count for a moment.
            with suppress(OSError):
                os.rmdir(path)
        if directory.exists():
            time.sleep(PAUSE)
    raise DeploymentError(f"control group {directory} cannot be removed")
