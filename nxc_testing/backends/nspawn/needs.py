"""What this host must have for machines in systemd-nspawn."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from nxc_testing.backends.host.privileges import missing_of
from nxc_testing.backends.nspawn import cgroups

TOOLS = {
    "systemd-nspawn": "systemd-container",
    "ip": "iproute2",
    "tar": "tar",
    **dict.fromkeys(("losetup", "mount", "nsenter", "prlimit", "setpriv", "unshare"), "util-linux"),
}
"""Programs, and the Debian packages that have them."""

STATUS = Path("/proc/self/status")
CAPABILITIES = frozenset({"SYS_ADMIN", "NET_ADMIN", "MKNOD"})


def obstacle() -> str | None:
    """Why this process cannot use systemd-nspawn, and what to do; None if it can."""
    if os.geteuid():
        return "systemd-nspawn needs root: run as root"
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        packages = " ".join(sorted({TOOLS[tool] for tool in missing}))
        return f"{missing[0]} is missing: `apt-get install {packages}`"
    if lacking := sorted(CAPABILITIES & missing_of(STATUS.read_text())):
        return f"this process has not got CAP_{lacking[0]}: run outside of containers"
    mounted = cgroups.hierarchies()
    if not mounted:
        return "no control groups are mounted: mount them, or run outside of containers"
    for one in mounted:
        if not os.access(one.mount, os.W_OK):
            return f"{one.mount} cannot be written to: run outside of containers"
    return None
