"""Networks of a deployment: bridges of the engine, with subnets that nobody else uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

import docker
from docker.errors import APIError
from docker.types import IPAMConfig, IPAMPool

from nxc_testing.backends.docker.engine import Engine, explanation
from nxc_testing.backends.host.subnets import POOL, Occupant, candidates, gateway, host_ranges
from nxc_testing.errors import DeploymentError
from nxc_testing.session import LABEL_RUN

ATTEMPTS = 50

OPTIONS = {"com.docker.network.bridge.enable_ip_masquerade": "false"}
ROUTE_AUX = "DefaultGatewayIPv4"
"""The bridge driver's name for a default gateway of containers that is not the bridge."""


@dataclass(frozen=True, slots=True)
class BridgeNetwork:
    """A network of a deployment.

    :ivar name: in the composition.
    :ivar id: in the engine.
    :ivar engine_name: what it is called in the engine.
    """

    name: str
    id: str
    engine_name: str
    subnet: IPv4Network

    @property
    def bridge(self) -> str:
        """The host's network device."""
        return f"br-{self.id[:12]}"


def dead_end(subnet: IPv4Network, used: Sequence[IPv4Address]) -> IPv4Address | None:
    """An address that nobody answers at, for the machines' default route; None if all are used.

    With it a machine that calls somebody outside is told "no route to host" after three seconds,
    and nothing leaves the host. Without masquerading alone such a packet would go out with the
    machine's private address, and the caller would wait for minutes. An `internal` network of
    the engine would be quicker to refuse, but it publishes no ports.
    """
    for candidate in (subnet[i] for i in range(-3, -min(subnet.num_addresses, 16), -1)):
        if candidate not in used and candidate != subnet.network_address:
            return candidate
    return None


def create(
    engine: Engine,
    name: str,
    engine_name: str,
    *,
    subnet: IPv4Network,
    used: Sequence[IPv4Address],
    labels: Mapping[str, str],
) -> BridgeNetwork | None:
    """Make a network.

    :param name: in the composition.
    :param engine_name: in the engine.
    :param used: the machines' addresses in it.
    :return: the network; None if the subnet has been taken meanwhile.
    :raise DeploymentError: if the engine refuses for another reason.
    """
    unused = dead_end(subnet, used)
    pool = IPAMPool(
        subnet=str(subnet),
        gateway=str(gateway(subnet)),
        aux_addresses={ROUTE_AUX: str(unused)} if unused else None,
    )
    with engine.api(f"network {name}") as api:
        try:
            made = api.create_network(
                engine_name,
                driver="bridge",
                ipam=IPAMConfig(pool_configs=[pool]),
                options=OPTIONS,
                labels=dict(labels),
            )
        except APIError as error:
            if "overlap" in explanation(error) or "already used" in explanation(error):
                return None
            raise
    return BridgeNetwork(name, made["Id"], engine_name, subnet)


def create_free(
    engine: Engine,
    name: str,
    engine_name: str,
    *,
    machines: int,
    used_in: Callable[[IPv4Network], Sequence[IPv4Address]],
    labels: Mapping[str, str],
) -> BridgeNetwork:
    """Make a network with a subnet that is free on this host.

    :param machines: how many addresses it must have.
    :param used_in: the machines' addresses in a subnet.
    :raise DeploymentError: if none is free.
    """
    taken = [one.range for one in occupants(engine)]
    attempts = 0
    for subnet in candidates(machines):
        if any(subnet.overlaps(other) for other in taken):
            continue
        if made := create(
            engine, name, engine_name, subnet=subnet, used=used_in(subnet), labels=labels
        ):
            return made
        attempts += 1
        if attempts == ATTEMPTS:
            break
    raise DeploymentError(f"network {name}: no subnet of {POOL} is free on this host")


def occupants(engine: Engine) -> list[Occupant]:
    """All address ranges in use: the engine's networks, and the host's addresses and routes."""
    with engine.api("listing networks") as api:
        found = _engine_networks(api)
    if engine.info.local:
        known = {one.range for one in found}
        found += [one for one in host_ranges() if one.range not in known]
    return found


def _engine_networks(api: docker.APIClient) -> list[Occupant]:
    found = []
    for network in api.networks():
        run = (network.get("Labels") or {}).get(LABEL_RUN)
        who = f"the Docker network {network['Name']}" + (f" of run {run}" if run else "")
        for config in (network.get("IPAM") or {}).get("Config") or ():
            if "." in config.get("Subnet", ""):
                subnet = IPv4Network(config["Subnet"], strict=False)
                found.append(Occupant(subnet, who, f"docker network rm {network['Name']}"))
    return found
