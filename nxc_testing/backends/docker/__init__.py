"""Machines as Docker containers with systemd as PID 1.

The Docker SDK is loaded when the backend is used, not when this module is.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nxc_testing.backends.base import Trace
    from nxc_testing.backends.docker.deployment import DockerDeployment
    from nxc_testing.backends.docker.node import DockerNode
    from nxc_testing.composition import Plan
    from nxc_testing.runs.journal import Record
    from nxc_testing.session import Session


class DockerBackend:
    """The backend `docker`: a real engine, named by DOCKER_HOST as for Docker's own client."""

    name = "docker"
    settle = 2.0

    def unavailable(self) -> str | None:
        """Why this host cannot use the backend and what to do; None if it can."""
        try:
            from nxc_testing.backends.docker.engine import obstacle  # noqa: PLC0415
        except ImportError as error:
            return f"the Docker SDK for Python cannot be loaded ({error}): pip install docker"
        return obstacle()

    def node_type(self) -> type[DockerNode]:
        """What its machines are made of; it says what they can do."""
        from nxc_testing.backends.docker.node import DockerNode  # noqa: PLC0415

        return DockerNode

    def deploy(self, plan: Plan, session: Session) -> DockerDeployment:
        """Make networks, volumes, disks and containers; nothing is started yet.

        :raise ConfigError: if the composition asks for what no container may have.
        :raise ImageError: if an image is not there.
        :raise DeploymentError: if the engine refuses; nothing is left then.
        """
        from nxc_testing.backends.docker.making import deploy  # noqa: PLC0415

        return deploy(plan, session)

    def traces(self) -> Sequence[Trace]:
        """What runs have in the engine, living and dead.

        :raise BackendUnavailable: if the engine does not answer.
        """
        from nxc_testing.backends.docker import removal  # noqa: PLC0415
        from nxc_testing.backends.docker.engine import Engine  # noqa: PLC0415

        with closing(Engine()) as engine:
            return removal.traces(engine)

    def reap(self, run: str, records: Sequence[Record]) -> list[str]:
        """Release everything of a run: in the engines that it has noted, and on this host.

        :return: what is gone now, in words.
        :raise NxcError: if something is left.
        """
        from nxc_testing.backends.docker.removal import reap  # noqa: PLC0415

        return reap(run, records)
