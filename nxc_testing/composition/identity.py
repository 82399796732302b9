"""Who a machine is, and how it learns that: its addresses, and the files it finds in /etc/nxc."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from nxc_testing.composition.model import Composition, Instance
from nxc_testing.composition.plan import MachinePlan, Plan
from nxc_testing.errors import ConfigError

DIRECTORY = "/etc/nxc"
PUBLIC, PRIVATE = 0o644, 0o600

Addresses = Mapping[str, Mapping[str, str]]
"""IP addresses by the names of host and network."""


@dataclass(frozen=True, slots=True)
class MachineFile:
    """A file that a machine finds before its first process starts; root owns it."""

    content: bytes
    mode: int


def assign_addresses(
    composition: Composition, subnets: Mapping[str, IPv4Network]
) -> dict[str, dict[str, str]]:
    """Give every machine an address in each of its networks.

    A machine has the address its role fixes for it. Any other has the one of its rank, as
    NixOS numbers its nodes (rank 3 in 192.168.1.0/24 is 192.168.1.3), or, where that is
    another's, the lowest that is free. The last usable address is left to the gateway.

    :param subnets: of the networks to give addresses in, by name.
    :return: addresses by the names of host and network; equal for equal arguments.
    :raise ConfigError: if a subnet has not enough addresses.
    """
    instances = composition.instances()
    given: dict[str, dict[str, str]] = {instance.name: {} for instance in instances}
    for network, subnet in subnets.items():
        members = [one for one in instances if network in one.role.networks]
        if len(members) > room(subnet):
            raise ConfigError(
                f"{subnet} has addresses for {room(subnet)} machines, and there are {len(members)}",
                file=composition.source,
                key=f"networks.{network}.subnet",
                hint="give fewer machines, or a subnet with a shorter prefix",
            )
        for host, address in _assign(network, subnet, members).items():
            given[host][network] = str(address)
    return {
        one.name: {net: given[one.name][net] for net in one.role.networks if net in subnets}
        for one in instances
    }


def room(subnet: IPv4Network) -> int:
    """How many machines fit: the network's, the gateway's and the broadcast address are taken."""
    return max(0, subnet.num_addresses - 3)


def _assign(network: str, subnet: IPv4Network, members: list[Instance]) -> dict[str, IPv4Address]:
    assigned: dict[str, IPv4Address] = {}
    for one in members:
        fixed = one.role.addresses if network == one.role.networks[0] else ()
        if one.index <= len(fixed):
            assigned[one.name] = fixed[one.index - 1]
    taken = set(assigned.values())
    displaced = []
    for one in members:
        if one.name in assigned:
            continue
        wanted = subnet.network_address + one.rank
        if one.rank > room(subnet) or wanted in taken:
            displaced.append(one.name)
        else:
            assigned[one.name] = wanted
    taken = set(assigned.values())
    free = (at for i in range(1, room(subnet) + 1) if (at := subnet[i]) not in taken)
    return assigned | dict(zip(displaced, free, strict=False))


def hosts_entries(plan: Plan, addresses: Addresses) -> list[tuple[str, tuple[str, ...]]]:
    """The lines that every machine's /etc/hosts must have.

    :return: for each machine its address in its primary network, and its name and aliases.
    """
    return [
        (primary_address(one, addresses), (one.name, *one.aliases))
        for one in (machine.instance for machine in plan.machines)
    ]


def primary_address(instance: Instance, addresses: Addresses) -> str:
    """A machine's address in the first of its networks."""
    return addresses[instance.name][instance.role.networks[0]]


def machine_files(plan: Plan, machine: MachinePlan, addresses: Addresses) -> dict[str, MachineFile]:
    """The files by which a machine knows itself and the others, with NixOS-Compose's names.

    Secrets are in files that root alone may read, byte for byte, and in no other. Their
    directory should be root's alone too.

    :return: files by their absolute paths.
    """
    instance = machine.instance
    lines = {
        "role": instance.role.name,
        "hostname": instance.name,
        "ip_addr": primary_address(instance, addresses),
        "uuid": str(instance.uuid),
        "deployment.json": json.dumps(deployment(plan, addresses), indent=2, ensure_ascii=False),
        "deployment-hosts": "\n".join(
            f"{address} {names[0]}" for address, names in hosts_entries(plan, addresses)
        ),
    }
    public = {
        f"{DIRECTORY}/{name}": MachineFile(f"{text}\n".encode(), PUBLIC)
        for name, text in lines.items()
    }
    private = {
        f"{DIRECTORY}/secrets/{name}": MachineFile(value.encode(), PRIVATE)
        for name, value in machine.secrets.items()
    }
    return public | private


def deployment(plan: Plan, addresses: Addresses) -> dict[str, Any]:
    """What stands in deployment.json: all that a machine may know of the others.

    The form is NixOS-Compose's: machines by their addresses as its virtual machines and
    Grid'5000 have them, and `nodes` as its containers have it.
    """
    instances = [machine.instance for machine in plan.machines]
    return {
        "composition": plan.composition.name,
        "nodes": [one.name for one in instances],
        "deployment": {
            primary_address(one, addresses): {
                "role": one.role.name,
                "host": one.name,
                "index": one.index,
                "uuid": str(one.uuid),
                "aliases": list(one.aliases),
                "addresses": dict(addresses[one.name]),
                "parameters": dict(one.role.parameters),
            }
            for one in instances
        },
        "parameters": dict(plan.composition.parameters),
    }
