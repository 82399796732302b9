"""Subnets for a deployment's networks: which are free on this host, and who has the others."""

from __future__ import annotations

import random
import socket
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import psutil

from nxc_testing.composition import Composition
from nxc_testing.errors import ConfigError, DeploymentError
from nxc_testing.session import Session

POOL = IPv4Network("10.128.0.0/9")
"""Where free subnets are looked for. Docker's own pools are elsewhere (172.16/12, 192.168/16)."""

PREFIX = 24
LARGEST_PREFIX = 16


@dataclass(frozen=True, slots=True)
class Occupant:
    """Who uses a range of addresses already.

    :ivar who: in words.
    :ivar removal: the command that frees the range, where there is a simple one.
    """

    range: IPv4Network
    who: str
    removal: str = ""


def gateway(subnet: IPv4Network) -> IPv4Address:
    """The host's address in a network: the last usable one."""
    return subnet[-2]


def candidates(machines: int) -> Iterator[IPv4Network]:
    """Subnets for so many machines, from a random place on, so that runs seldom meet."""
    prefix = next(
        (p for p in range(PREFIX, LARGEST_PREFIX - 1, -1) if 2 ** (32 - p) - 4 >= machines), None
    )
    if prefix is None:
        raise ConfigError(
            f"{machines} machines do not fit into one network",
            key="roles",
            hint=f"a network takes {2 ** (32 - LARGEST_PREFIX) - 4}",
        )
    size = 2 ** (32 - prefix)
    count = POOL.num_addresses // size
    first = random.randrange(count)
    for i in range(count):
        yield IPv4Network((int(POOL.network_address) + (first + i) % count * size, prefix))


def check_free(name: str, subnet: IPv4Network, occupants: Iterable[Occupant]) -> None:
    """See that a subnet that a composition insists on can be had.

    :param name: the network's, for the message.
    :raise DeploymentError: if somebody uses it; says who.
    """
    for one in occupants:
        if one.range.overlaps(subnet):
            hint = f"\n  if nothing needs it any more: {one.removal}" if one.removal else ""
            raise DeploymentError(
                f"network {name}: its fixed subnet {subnet} is in use on this host: "
                f"{one.who} has {one.range}{hint}"
            )


def lock_fixed(composition: Composition, session: Session, locks: ExitStack) -> None:
    """Wait until no other run has the subnets that a composition insists on.

    :param locks: what is released when the deployment is.
    """
    # Always in one order, so that two runs never wait for each other.
    for subnet in sorted(network.subnet for network in composition.networks if network.subnet):
        locks.enter_context(session.lock(f"subnet-{subnet}".replace("/", "-")))


def host_ranges() -> Iterator[Occupant]:
    """The host's own addresses and routes."""
    for device, addresses in psutil.net_if_addrs().items():
        for one in addresses:
            if one.family == socket.AF_INET and one.netmask:
                subnet = IPv4Network(f"{one.address}/{one.netmask}", strict=False)
                yield Occupant(subnet, f"the host's network device {device}")
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        device, destination, _, _, _, _, _, mask = line.split()[:8]
        if int(mask, 16):
            address = int(destination, 16).to_bytes(4, sys.byteorder)
            subnet = IPv4Network((address, int(mask, 16).bit_count()))
            yield Occupant(subnet, f"a route of the host through {device}")
