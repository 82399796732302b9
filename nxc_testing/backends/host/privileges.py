"""Linux capabilities that machines are given: what they may ask for, and what nobody gets."""

from __future__ import annotations

from nxc_testing.composition import Composition, Role
from nxc_testing.errors import ConfigError

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


def asked_for(
    composition: Composition, role: Role, missing: frozenset[str], *, giver: str, status: str
) -> list[str]:
    """The capabilities that a role asks for beyond the least.

    :param missing: those that cannot be given.
    :param giver: who gives them, for the message.
    :param status: the `/proc/PID/status` of the process whose own capabilities are the limit.
    :raise ConfigError: if it asks for what no machine may have, or what cannot be given.
    """
    wanted = [name.upper().removeprefix("CAP_") for name in role.capabilities]
    for name in wanted:
        if name == FORBIDDEN:
            problem = (
                f"{FORBIDDEN} is never given: the clock has no namespace, "
                "so the machine would set the host's"
            )
            hint = "take it out; a wrong clock can be had with libfaketime or in a virtual machine"
        elif name in missing:
            problem = f"{giver} on this host cannot give {name}: it has not got it itself"
            hint = f"take it out, or run where `grep CapBnd {status}` has it"
        else:
            continue
        key = f"roles.{role.name}.capabilities"
        raise ConfigError(problem, file=composition.source, key=key, hint=hint)
    return wanted


def missing_of(status: str) -> frozenset[str]:
    """The capabilities outside a process' bounding set.

    :param status: its /proc/PID/status.
    """
    for line in status.splitlines():
        key, _, value = line.partition(":")
        if key == "CapBnd":
            bound = int(value, 16)
            return frozenset(n for i, n in enumerate(CAPABILITIES) if not bound >> i & 1)
    return frozenset()
