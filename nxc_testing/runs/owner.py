"""Whose a run is, written down so that anybody can tell later whether its process lives."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import socket
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path

MACHINE_ID = Path("/etc/machine-id")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
PID_NAMESPACE = Path("/proc/self/ns/pid")


class Life(Enum):
    """What can be said of a process."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Host:
    """Where process numbers mean something. Several hosts may use one engine.

    :ivar machine: this installation; empty where it cannot be told from others.
    :ivar boot: this boot of its kernel.
    :ivar namespace: the PID namespace; containers of one host differ by it.
    """

    machine: str
    boot: str
    namespace: str

    def __str__(self) -> str:
        return f"{self.machine}.{self.boot}.{self.namespace}"


@cache
def this_host() -> Host:
    """The host that this process runs on."""
    machine = _read(MACHINE_ID)
    # machine-id(5) wants it hashed. Images are copied with it: the name tells copies apart.
    return Host(
        machine=_hash(f"{machine} {socket.gethostname()}") if machine else "",
        boot=_hash(_read(BOOT_ID)),
        namespace="".join(filter(str.isdigit, os.readlink(PID_NAMESPACE))),
    )


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that a run belongs to. Its text is fit for labels.

    :ivar pid: its number.
    :ivar start: when it started, in clock ticks since the boot: tells it from a later process
        of the same number.
    :ivar uid: its user.
    """

    pid: int
    start: int
    uid: int
    host: Host

    @classmethod
    def of(cls, pid: int | None = None) -> Owner:
        """A process of this host and user.

        :param pid: its number; this process by default.
        :raise ProcessLookupError: if there is none.
        """
        pid = pid or os.getpid()
        start = _start(pid)
        if start is None:
            raise ProcessLookupError(f"there is no process {pid}")
        return cls(pid, start, os.geteuid(), this_host())

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """The owner that a text names; None if it names none."""
        form = re.fullmatch(r"(\d+):(\d+):(\d+)@(\w*)\.(\w*)\.(\d*)", text.strip())
        if form is None:
            return None
        pid, start, uid, *host = form.groups()
        return cls(int(pid), int(start), int(uid), Host(*host))

    def __str__(self) -> str:
        return f"{self.pid}:{self.start}:{self.uid}@{self.host}"

    def life(self) -> Life:
        """Whether the process lives. What cannot be seen from here is unknown, never dead."""
        here = this_host()
        if self.host.boot != here.boot:
            rebooted = here.machine and self.host.machine == here.machine
            return Life.DEAD if rebooted else Life.UNKNOWN
        if self.host.namespace != here.namespace:
            return Life.UNKNOWN
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return Life.DEAD
        except PermissionError:
            pass
        start = _start(self.pid)
        if start is None:
            # It ended just now, or /proc hides other users' processes.
            return Life.UNKNOWN
        return Life.ALIVE if start == self.start else Life.DEAD


def _start(pid: int) -> int | None:
    """When a process started; 0 for one that has ended and was not waited for; None if unseen."""
    try:
        # proc(5), /proc/pid/stat; the name in parentheses may have anything in it.
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return 0 if state in {"Z", "X"} else int(rest[18])


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _hash(text: str) -> str:
    return hmac.new(b"nxc_testing", text.encode(), hashlib.sha256).hexdigest()[:12]
