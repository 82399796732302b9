"""How systemd becomes PID 1 of a container, on cgroup v1 and v2 hosts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nxc_testing.backends.host.provision import RESOLV_CONF

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

NO_NAME_SERVER = f"echo '{RESOLV_CONF}' >/etc/resolv.conf"

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
