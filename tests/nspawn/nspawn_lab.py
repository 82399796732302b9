"""What this host shows of machines in systemd-nspawn, without the backend's help."""

from __future__ import annotations

import os
from pathlib import Path

from machine_lab import Node


def left_of(deployment: str) -> list[str]:
    """Everything on this host that bears a deployment's name."""
    places = {
        "/sys/fs/cgroup": f"*/{deployment}*",
        "/run/netns": f"{deployment}*",
        "/sys/class/net": f"nx{deployment[4:12]}*",
        "/var/tmp": f"{deployment}*",
    }
    return [str(path) for place, name in places.items() for path in Path(place).glob(name)]


def leader(node: Node) -> int:
    """This host's number of a machine's PID 1."""
    return int((node.directory / "leader").read_text())


def bounding_set(process: str | int) -> int:
    """The capabilities that a process of this host may have."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("CapBnd:")[2].split()[0], 16)


def groups_of(process: int) -> set[str]:
    """The names of machines' control groups that a process is in."""
    lines = Path(f"/proc/{process}/cgroup").read_text().splitlines()
    paths = [line.split(":", 2)[2] for line in lines]
    return {path.split("/")[1] for path in paths if path.startswith("/nxc-")}


def sleeping(length: str) -> list[int]:
    """The processes of this host that sleep for a time that nobody else sleeps for."""
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{process}/cmdline").read_text()
            if command.endswith(f"sleep\0{length}\0"):
                found.append(int(process))
        except OSError:
            continue
    return found
