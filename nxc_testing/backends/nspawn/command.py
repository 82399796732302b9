"""The command line of systemd-nspawn for a machine, and what the machine may do on its host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from nxc_testing.backends.host.privileges import CAPABILITIES, FORBIDDEN, asked_for, missing_of
from nxc_testing.backends.host.switch import NAMESPACES
from nxc_testing.backends.nspawn import cgroups
from nxc_testing.backends.nspawn.needs import STATUS
from nxc_testing.composition import Composition, Instance, Role

LEAST = tuple(
    """
    AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW SETFCAP
    SETGID SETPCAP SETUID SYS_ADMIN SYS_BOOT SYS_CHROOT
    """.split()  # noqa: SIM905
)
"""The same as a machine in Docker has: its fourteen, SYS_ADMIN for mounts, SYS_BOOT to end."""

LAUNCH = Path(__file__).with_name("launch.sh")
LAUNCH_SCRIPT = Path(__file__).with_name("launch-script.sh")

MARK = "NXC_NSPAWN"
"""In the environment of every process that holds a machine: its deployment."""

ENVIRONMENT = {
    # The size and abilities of the console, which has no terminal at its other end.
    "COLUMNS": "200",
    "LINES": "50",
    "TERM": "dumb",
    # /tmp is on the machine's disk, as anywhere else.
    "SYSTEMD_NSPAWN_TMPFS_TMP": "0",
}


def capabilities(composition: Composition, role: Role) -> list[str]:
    """What a role's machines may have, by the capabilities' names without `CAP_`.

    :raise ConfigError: if it asks for what no machine may have, or this process has not.
    """
    missing = missing_of(STATUS.read_text())
    wanted = asked_for(composition, role, missing, giver="this process", status=str(STATUS))
    if role.privileged:
        return [name for name in CAPABILITIES if name != FORBIDDEN and name not in missing]
    # Where nothing else keeps a machine from the host's disks, it makes no nodes for them.
    least = LEAST if cgroups.limits_devices() else set(LEAST) - {"MKNOD"}
    return sorted({*least, *wanted})


def environment(deployment: str, role: Role) -> dict[str, str]:
    """What systemd-nspawn finds in its environment beside the user's."""
    given = {**ENVIRONMENT, MARK: deployment}
    if role.privileged:
        given |= {"SYSTEMD_NSPAWN_API_VFS_WRITABLE": "1", "SYSTEMD_SECCOMP": "0"}
    return given


def command(
    instance: Instance,
    *,
    switch: str,
    capabilities: Sequence[str],
    volumes: Mapping[str, Path],
    disks: Mapping[str, str],
) -> list[str]:
    """What starts a machine, in its directory.

    :param switch: the namespace of its networks.
    :param capabilities: what it may have.
    :param volumes: the host's directories by the paths they are mounted at.
    :param disks: the host's devices by the machine's device names, without `/dev/`.
    """
    role = instance.role
    memory = role.memory or psutil.virtual_memory().total
    # In a unit's terms `--keep-unit`: no manager of this host is told of it, and none is needed.
    options = {
        "directory": "root",
        "machine": instance.name,
        "hostname": instance.name,
        "uuid": instance.uuid.hex,
        "network-namespace-path": "/proc/self/ns/net",
        "private-users": "no",
        "console": "read-only",
        "register": "no",
        "link-journal": "no",
        "resolv-conf": "off",
        "timezone": "off",
        "capability": _listed(capabilities),
        "drop-capability": _listed([name for name in CAPABILITIES if name not in capabilities]),
        "tmpfs": f"/dev/shm:mode=1777,size={memory // 2}",
    }
    binds = {
        **{path: str(directory) for path, directory in volumes.items()},
        **{f"/dev/{name}": device for name, device in disks.items()},
        **{device: device for device in role.devices},
    }
    return [
        *("unshare", "--mount", "--net", "/bin/sh", str(LAUNCH), switch),
        *("--quiet", "--keep-unit", "--boot"),
        *(f"--{name}={value}" for name, value in options.items()),
        *(f"--bind={source}:{target}" for target, source in binds.items()),
    ]


def _listed(capabilities: Sequence[str]) -> str:
    return ",".join(f"CAP_{name}" for name in capabilities)


def script_command(script: Path, *, switch: str, shared: Path, locks: Path) -> list[str]:
    """What starts a machine by a start script, in its directory.

    :param switch: the namespace that the script makes networks in.
    :param shared: a directory that all machines see.
    :param locks: one in which scripts wait for each other.
    """
    return [
        *("nsenter", f"--net={NAMESPACES / switch}", "unshare", "--mount"),
        *("/bin/sh", str(LAUNCH_SCRIPT), str(script), str(shared), str(locks)),
    ]
