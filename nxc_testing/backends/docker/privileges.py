"""What a machine may do on its host: the least that systemd needs, and what was asked for."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from nxc_testing.backends.docker.engine import EngineInfo
from nxc_testing.backends.host.privileges import FORBIDDEN, asked_for, missing_of
from nxc_testing.composition import Composition, Role

NEEDED = ("SYS_ADMIN", "SYS_BOOT")
"""Beside Docker's own fourteen: SYS_ADMIN for systemd's mounts; SYS_BOOT so that a machine can
end itself by reboot(2) and be seen to have asked for a restart or for none. In a PID namespace
that call ends the namespace's processes and nothing else (reboot(2))."""

STATUS = "/proc/$(pidof dockerd)/status"


def privileges(composition: Composition, role: Role, info: EngineInfo) -> dict[str, Any]:
    """A role's capabilities and confinement, as arguments for a container's host configuration.

    A privileged role gets every capability that the engine has but SYS_TIME, no seccomp,
    AppArmor or SELinux confinement, nothing hidden in /proc, and may open any device that it
    makes a node for. Docker's own `--privileged` would add SYS_TIME, and the host's device
    nodes, whose names may be those of the machine's own disks.

    :raise ConfigError: if the role asks for what no machine may have, or the engine has not.
    """
    missing = lacking() if role.capabilities or role.privileged else frozenset()
    wanted = asked_for(composition, role, missing, giver="the Docker engine", status=STATUS)
    options: dict[str, Any] = {
        "cap_add": sorted({*NEEDED, *wanted}),
        "security_opt": _confinement(role, info),
    }
    if role.privileged:
        options["cap_add"] = ["ALL"]
        options["cap_drop"] = sorted({FORBIDDEN, *missing})
        options["device_cgroup_rules"] = ["a *:* rwm"]
    return options


def _confinement(role: Role, info: EngineInfo) -> list[str]:
    """The engine's own profiles that must go: they forbid the mounts that systemd makes."""
    options = []
    if info.apparmor:
        options.append("apparmor=unconfined")
    if info.selinux:
        options.append("label=disable")
    if role.privileged:
        options.append("seccomp=unconfined")
    return options


def lacking() -> frozenset[str]:
    """The capabilities that the engine on this host cannot give, having not got them itself."""
    for process in psutil.process_iter(["name"]):
        if process.info["name"] == "dockerd":
            with suppress(OSError):
                return missing_of(Path(f"/proc/{process.pid}/status").read_text())
    # It is out of sight, for one who is in a container himself: let the engine say it.
    return frozenset()
