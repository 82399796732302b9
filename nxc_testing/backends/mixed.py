"""Containers and virtual machines in one deployment, and in the same networks.

The backend of the containers makes the networks; virtual machines join them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from nxc_testing import backends
from nxc_testing.backends.base import (
    Access,
    Backend,
    Deployment,
    JoinsSegments,
    Node,
    OffersSegments,
)
from nxc_testing.backends.host.steps import try_all
from nxc_testing.composition import Plan, Role
from nxc_testing.errors import ConfigError, DeploymentError
from nxc_testing.session import Session


class MixedDeployment:
    """Deployments of one composition by several backends.

    :param parts: in the order in which they were made.
    """

    def __init__(self, plan: Plan, parts: Sequence[Deployment]):
        self._plan, self._parts = plan, parts

    @property
    def nodes(self) -> Sequence[Node]:
        """In the order of the plan."""
        found = {node.name: node for part in self._parts for node in part.nodes}
        return [found[machine.instance.name] for machine in self._plan.machines]

    def access(self) -> Sequence[Access]:
        """How a person reaches each machine by hand."""
        return [access for part in self._parts for access in part.access()]

    def close(self) -> None:
        """Release everything, also after a failure in the middle; may be called twice.

        :raise DeploymentError: if something could not be released; the rest is.
        """
        if failures := try_all(*(part.close for part in reversed(self._parts))):
            raise DeploymentError("\n".join(str(failure) for failure in failures))


def deploy(plan: Plan, session: Session, chosen: Backend) -> Deployment:
    """Make a plan's machines, each by the backend of its role.

    :param chosen: makes those of roles that name none.
    :raise NxcError: if it cannot be done; nothing is left then.
    """
    _check_names(plan)
    kinds = {name: backends.load(name) for name in _names(plan, chosen)}
    if not kinds:
        return chosen.deploy(plan, session)
    if len(kinds) == 1:
        return next(iter(kinds.values())).deploy(plan, session)
    host = _host_of_networks(plan, kinds.values())
    _check_volumes(plan, chosen)
    parts = [host.deploy(_share(plan, host, chosen), session)]
    try:
        first = parts[0]
        if not isinstance(first, OffersSegments):
            raise _error(plan, f"nobody else can be in the networks of {host.name}")
        joint = replace(plan, segments=first.segments())
        for backend in kinds.values():
            if backend.name != host.name:
                parts.append(backend.deploy(_share(joint, backend, chosen), session))
    except BaseException:
        MixedDeployment(plan, parts).close()
        raise
    return MixedDeployment(plan, parts)


def _check_names(plan: Plan) -> None:
    for role in plan.composition.roles:
        if role.backend and role.backend not in backends.names():
            raise ConfigError(
                f"there is no backend {role.backend!r}",
                file=plan.composition.source,
                key=f"roles.{role.name}.backend",
                hint=f"installed: {', '.join(backends.names())}",
            )


def _names(plan: Plan, chosen: Backend) -> list[str]:
    return sorted({_backend_of(machine.instance.role, chosen) for machine in plan.machines})


def _backend_of(role: Role, chosen: Backend) -> str:
    return role.backend or chosen.name


def _share(plan: Plan, backend: Backend, chosen: Backend) -> Plan:
    """What one backend makes of a plan."""
    others = (
        machine.instance.name
        for machine in plan.machines
        if _backend_of(machine.instance.role, chosen) != backend.name
    )
    return replace(plan, elsewhere=frozenset(others))


def _host_of_networks(plan: Plan, kinds: Iterable[Backend]) -> Backend:
    """The backend that makes the networks: the one that joins nobody's."""
    hosts = [one for one in kinds if not isinstance(one, JoinsSegments)]
    if len(hosts) == 1:
        return hosts[0]
    names = " and ".join(one.name for one in hosts)
    raise _error(plan, f"machines of {names} cannot be in one network")


def _check_volumes(plan: Plan, chosen: Backend) -> None:
    roles = {machine.instance.role.name: machine.instance.role for machine in plan.machines}
    for volume in plan.composition.volumes:
        mounting = [roles[name] for name in volume.roles or roles if name in roles]
        if len({_backend_of(role, chosen) for role in mounting}) > 1:
            raise ConfigError(
                "machines of several backends cannot share a volume",
                file=plan.composition.source,
                key=f"volumes.{volume.name}.roles",
                hint="name roles of one backend",
            )


def _error(plan: Plan, problem: str) -> ConfigError:
    return ConfigError(
        problem,
        file=plan.composition.source,
        key="roles.*.backend",
        hint="roles of `qemu` can stand beside those of `docker`, or of `nspawn`",
    )
