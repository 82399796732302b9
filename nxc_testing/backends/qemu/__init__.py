"""Machines as virtual machines of QEMU, with a kernel of their own; no privilege is needed.

QEMU's QMP library is loaded when the backend is used, not when this module is.
"""

from __future__ import annotations

import importlib.util
import platform
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nxc_testing.backends.base import Trace
    from nxc_testing.backends.qemu.acceleration import Verdict
    from nxc_testing.backends.qemu.deployment import QemuDeployment
    from nxc_testing.backends.qemu.node import QemuNode
    from nxc_testing.composition import Plan
    from nxc_testing.runs.journal import Record
    from nxc_testing.session import Session

TOOLS = {"qemu-system-x86_64": "qemu-system-x86", "qemu-img": "qemu-utils"}
"""What the backend needs of the host, and the package that has it."""

_UNKNOWN = "whether KVM works is found out when the first machine is made"


class QemuBackend:
    """The backend `qemu`."""

    name = "qemu"
    settle = 0.5

    def unavailable(self) -> str | None:
        """Why this host cannot use the backend and what to do; None if it can."""
        if platform.machine() != "x86_64":
            return f"it makes x86_64 machines only so far, and this host is {platform.machine()}"
        for tool, package in TOOLS.items():
            if not shutil.which(tool):
                return f"{tool} is missing: apt-get install {package}"
        if importlib.util.find_spec("qemu") is None or not importlib.util.find_spec("qemu.qmp"):
            return "QEMU's QMP library is missing: pip install qemu.qmp"
        return None

    @property
    def joins_segments(self) -> bool:
        """True: its machines can be in networks of containers."""
        return True

    def remarks(self) -> Sequence[str]:
        """Whether machines run on the host's processor or are emulated, and why."""
        verdict = self._verdict()
        return [f"{verdict.accelerator}: {verdict.reason}" if verdict else _UNKNOWN]

    def slow(self) -> str | None:
        """Why machines are emulated here, or may be; None if KVM works."""
        verdict = self._verdict()
        if verdict and verdict.accelerator == "kvm":
            return None
        return verdict.reason if verdict else _UNKNOWN

    def _verdict(self) -> Verdict | None:
        from nxc_testing.backends.qemu import acceleration  # noqa: PLC0415
        from nxc_testing.images.cache import Cache  # noqa: PLC0415

        return acceleration.known(Cache())

    def node_type(self) -> type[QemuNode]:
        """What its machines are made of; it says what they can do."""
        from nxc_testing.backends.qemu.node import QemuNode  # noqa: PLC0415

        return QemuNode

    def deploy(self, plan: Plan, session: Session) -> QemuDeployment:
        """Make networks, volumes, disks and machines; nothing is started yet.

        :raise ImageError: if an image is not there, or cannot be booted.
        :raise DeploymentError: if it cannot be done; nothing is left then.
        """
        from nxc_testing.backends.qemu.making import deploy  # noqa: PLC0415

        return deploy(plan, session)

    def traces(self) -> Sequence[Trace]:
        """What runs have on this host, living and dead."""
        from nxc_testing.backends.qemu import removal  # noqa: PLC0415

        return removal.traces()

    def reap(self, run: str, records: Sequence[Record]) -> list[str]:
        """Release everything of a run.

        :return: what is gone now, in words.
        :raise NxcError: if something is left.
        """
        from nxc_testing.backends.qemu.removal import reap  # noqa: PLC0415

        return reap(run, records)
