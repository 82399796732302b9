"""What must hold for a composition's machines together, whatever counts they got and from whom."""

from __future__ import annotations

from collections.abc import Mapping

from nxc_testing.composition.identity import assign_addresses
from nxc_testing.composition.model import Composition, Instance
from nxc_testing.composition.names import check_name, python_name
from nxc_testing.tables import Origin


def check_machines(composition: Composition, origins: Mapping[str, Origin]) -> None:
    """See that the machines can live side by side.

    :param origins: for every role who said how many there are; where two roles clash, the
        later one of this mapping is told.
    :raise ConfigError: if there is no machine, if two share a name or a port of the host, if a
        name cannot be one, or if a network's fixed subnet is too small.
    """
    machines: dict[str, list[Instance]] = {name: [] for name in origins}
    for instance in composition.instances():
        machines[instance.role.name].append(instance)
    if not any(machines.values()):
        *_, last = origins.values()
        raise last.error("no machine is left", "at least one role must have a count of 1 or more")
    _check_names(composition, machines, origins)
    _check_ports(machines, origins)
    fixed = {net.name: net.subnet for net in composition.networks if net.subnet is not None}
    assign_addresses(composition, fixed)


def _check_names(
    composition: Composition,
    machines: Mapping[str, list[Instance]],
    origins: Mapping[str, Origin],
) -> None:
    """Names are compared as tests spell them and, as in DNS, without regard to case."""
    roles = {python_name(role.name).lower(): role.name for role in composition.roles}
    taken: dict[str, str] = {}
    for role, instances in machines.items():
        check_name(role, origins[role])
        for instance in instances:
            names = {instance.name: f"a machine of role {role}"}
            names |= dict.fromkeys(instance.aliases, f"the other name of {instance.name}")
            for name, what in names.items():
                check_name(name, origins[role])
                key = python_name(name).lower()
                namesake = roles.get(key, role)
                other = f'"{namesake}" is a role' if namesake != role else taken.get(key)
                if other:
                    raise origins[role].error(
                        f'"{name}" would be {what}, but {other}',
                        "names of machines and roles must differ by more than case and punctuation",
                    )
                taken[key] = f'"{name}" is {what}'


def _check_ports(machines: Mapping[str, list[Instance]], origins: Mapping[str, Origin]) -> None:
    """Each port of the host leads to one machine."""
    taken: dict[int, str] = {}
    for role, instances in machines.items():
        for instance in instances:
            for port in instance.role.ports:
                other = taken.get(port.host)
                if other:
                    raise origins[role].error(
                        f"port {port.host} of the host would lead to {other}"
                        f" and to {instance.name}",
                        f"publish {port.guest} without a host port: a free one is chosen then",
                    )
                if port.host:
                    taken[port.host] = instance.name
