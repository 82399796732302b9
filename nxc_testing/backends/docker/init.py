"""How systemd becomes PID 1 of a container, on cgroup v1 and v2 hosts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

STOP_SIGNAL = "SIGRTMIN+3"
"""systemd(1): start halt.target."""

REBOOT_SIGNAL = "SIGRTMIN+5"
"""systemd(1): start reboot.target."""

SYSTEMD = ("/lib/systemd/systemd",)

HOSTS_FILE = "/etc/nxc/hosts"
"""Where a container finds what its /etc/hosts is to be."""

# The engine writes /etc/hosts anew at each start, and gives a machine there all the addresses it
# has, in any order.
HOSTS = f"cat {HOSTS_FILE} >/etc/hosts"

# A container's name server would ask the host's for every name that /etc/hosts has not got, and
# a machine has no way out: each such look-up took more than 20 s. An address where nobody
# listens refuses at once, as in a NixOS test; a machine may run a server of its own there.
NO_NAME_SERVER = "echo 'nameserver 127.0.0.1' >/etc/resolv.conf"

# systemd cuts its messages to the terminal's width, and colours them.
PLAIN_CONSOLE = "stty cols 200 rows 50; export container=docker TERM=dumb"

# The engine mounts a container's own cgroup tree read-only; systemd must make groups in it.
WRITABLE_CGROUPS = "mount -o remount,bind,rw /sys/fs/cgroup"

# On a v1 host systemd mounts a tree for itself, and keeps a copy of it in this one; where it
# cannot, each unit that starts puts three complaints into the journal.
WRITABLE_COPY = "mount -o remount,bind,rw /sys/fs/cgroup/systemd 2>/dev/null"


def entrypoint(image: Mapping[str, Any], cgroup: int) -> list[str]:
    """The command line of PID 1: a few preparations, and then the image's init in their place.

    :param image: the image's configuration (`Config` of the Docker Engine API); systemd is
        started where it names no command.
    :param cgroup: the host's cgroup version.
    """
    steps = [HOSTS, NO_NAME_SERVER, PLAIN_CONSOLE]
    steps.append(WRITABLE_CGROUPS if cgroup >= 2 else WRITABLE_COPY)
    script = "\n".join((*steps, 'exec "$@"'))
    init = [*(image.get("Entrypoint") or ()), *(image.get("Cmd") or ())] or SYSTEMD
    return ["/bin/sh", "-c", script, "init", *init]


def hosts_file(entries: Iterable[tuple[str, tuple[str, ...]]]) -> bytes:
    """An /etc/hosts.

    :param entries: an address, and the names it has.
    """
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    lines += [" ".join((address, *names)) for address, names in entries]
    return "".join(f"{line}\n" for line in lines).encode()
