"""Machines as systemd-nspawn containers: no engine and no daemon, only root and a few tools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nxc_testing.backends.base import Trace
    from nxc_testing.backends.nspawn.deployment import NspawnDeployment
    from nxc_testing.backends.nspawn.node import NspawnNode
    from nxc_testing.composition import Plan
    from nxc_testing.runs.journal import Record
    from nxc_testing.session import Session


class NspawnBackend:
    """The backend `nspawn`: this host's own kernel and files, as root."""

    name = "nspawn"
    settle = 1.0

    def unavailable(self) -> str | None:
        """Why this host cannot use the backend and what to do; None if it can."""
        from nxc_testing.backends.nspawn.needs import obstacle  # noqa: PLC0415

        return obstacle()

    def node_type(self) -> type[NspawnNode]:
        """What its machines are made of; it says what they can do."""
        from nxc_testing.backends.nspawn.node import NspawnNode  # noqa: PLC0415

        return NspawnNode

    def deploy(self, plan: Plan, session: Session) -> NspawnDeployment:
        """Make networks, volumes, disks and root directories; nothing is started yet.

        :raise ConfigError: if the composition asks for what no container may have.
        :raise ImageError: if an image is not there.
        :raise DeploymentError: if this host refuses; nothing is left then.
        """
        from nxc_testing.backends.nspawn.making import deploy  # noqa: PLC0415

        return deploy(plan, session)

    def traces(self) -> Sequence[Trace]:
        """What runs have on this host, living and dead."""
        from nxc_testing.backends.nspawn import removal  # noqa: PLC0415

        return removal.traces()

    def reap(self, run: str, records: Sequence[Record]) -> list[str]:
        """Release everything of a run.

        :return: what is gone now, in words.
        :raise NxcError: if something is left.
        """
        from nxc_testing.backends.nspawn.removal import reap  # noqa: PLC0415

        return reap(run)
