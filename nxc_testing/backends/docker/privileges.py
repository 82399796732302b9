"""What a machine may do on its host: the least that systemd needs, and what was asked for."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from nxc_testing.backends.docker.engine import EngineInfo
from nxc_testing.composition import Composition, Role
from nxc_testing.errors import ConfigError

NEEDED = ("SYS_ADMIN", "SYS_BOOT")
"""Beside Docker's own fourteen: SYS_ADMIN for systemd's mounts; SYS_BOOT so that a machine can
end itself by reboot(2) and be seen to have asked for a restart or for none. In a PID namespace
that call ends the namespace's processes and nothing else (reboot(2))."""

FORBIDDEN = "SYS_TIME"
"""The clock has no namespace: a machine that sets it sets the host's."""

# In the order of their numbers, as in linux/capability.h.
CAPABILITIES = tuple(
    """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO
    SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME
    SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG
    WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
    """.split()  # noqa: SIM905
)


def privileges(composition: Composition, role: Role, info: EngineInfo) -> dict[str, Any]:
    """A role's capabilities and confinement, as arguments for a container's host configuration.

    A privileged role gets every capability that the engine has but SYS_TIME, no seccomp,
    AppArmor or SELinux confinement, nothing hidden in /proc, and may open any device that it
    makes a node for. Docker's own `--privileged` would add SYS_TIME, and the host's device
    nodes, whose names may be those of the machine's own disks.

    :raise ConfigError: if the role asks for what no machine may have, or the engine has not.
    """
    wanted = [name.upper().removeprefix("CAP_") for name in role.capabilities]
    missing = lacking() if wanted or role.privileged else frozenset()
    for name in wanted:
        _check(composition, role, name, missing)
    options: dict[str, Any] = {
        "cap_add": sorted({*NEEDED, *wanted}),
        "security_opt": _confinement(role, info),
    }
    if role.privileged:
        options["cap_add"] = ["ALL"]
        options["cap_drop"] = sorted({FORBIDDEN, *missing})
        options["device_cgroup_rules"] = ["a *:* rwm"]
    return options


def _check(composition: Composition, role: Role, name: str, missing: frozenset[str]) -> None:
    key = f"roles.{role.name}.capabilities"
    if name == FORBIDDEN:
        raise ConfigError(
            f"{FORBIDDEN} is never given: the clock has no namespace, "
            "so the machine would set the host's",
            file=composition.source,
            key=key,
            hint="take it out; a wrong clock can be had with libfaketime or in a virtual machine",
        )
    if name in missing:
        raise ConfigError(
            f"the Docker engine on this host cannot give {name}: it has not got it itself",
            file=composition.source,
            key=key,
            hint="take it out, or run where `grep CapBnd /proc/$(pidof dockerd)/status` has it",
        )


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
                return _missing_of(Path(f"/proc/{process.pid}/status").read_text())
    # It is out of sight, for one who is in a container himself: let the engine say it.
    return frozenset()


def _missing_of(status: str) -> frozenset[str]:
    for line in status.splitlines():
        key, _, value = line.partition(":")
        if key == "CapBnd":
            bound = int(value, 16)
            return frozenset(n for i, n in enumerate(CAPABILITIES) if not bound >> i & 1)
    return frozenset()
