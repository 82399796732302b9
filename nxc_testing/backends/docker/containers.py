"""One container: what it is made of, and the files it finds at its first boot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import docker
from docker.types import HostConfig, LogConfig, Mount, NetworkingConfig

from nxc_testing.backends.base import HELD_AT, SHARED_AT
from nxc_testing.backends.docker.engine import EngineInfo
from nxc_testing.backends.docker.init import STOP_SIGNAL, entrypoint
from nxc_testing.backends.docker.networks import BridgeNetwork
from nxc_testing.backends.docker.privileges import privileges
from nxc_testing.composition import Composition, Instance, Role

LOOPBACK = "127.0.0.1"
NANO = 10**9
CONSOLE_LOG = {"max-size": "10m", "max-file": "1"}
"""The engine keeps the console for `docker logs` too; a machine that floods it fills no disk."""


@dataclass(frozen=True, slots=True)
class Blueprint:
    """Everything that a container is made of.

    :ivar name: in the engine.
    :ivar image: its id in the engine.
    :ivar image_config: `Config` of the Docker Engine API.
    :ivar networks: those it is in, the primary one first, with its address in each.
    :ivar volumes: the engine's names of volumes by the paths they are mounted at.
    :ivar shared: the engine's name of the volume that all machines share with the host.
    :ivar disks: the host's devices by the machine's device names, without `/dev/`.
    """

    name: str
    instance: Instance
    image: str
    image_config: Mapping[str, Any]
    networks: Sequence[tuple[BridgeNetwork, str]]
    volumes: Mapping[str, str]
    shared: str
    disks: Mapping[str, str]
    labels: Mapping[str, str]


def create(
    api: docker.APIClient, blueprint: Blueprint, composition: Composition, info: EngineInfo
) -> str:
    """Make a container and put it into its networks; it is not started.

    :return: its id.
    """
    role = blueprint.instance.role
    (primary, address), *others = blueprint.networks
    connections = NetworkingConfig()
    connections["EndpointsConfig"] = {
        primary.engine_name: api.create_endpoint_config(ipv4_address=address)
    }
    made = api.create_container(
        blueprint.image,
        name=blueprint.name,
        hostname=blueprint.instance.name,
        entrypoint=entrypoint(blueprint.image_config, info.cgroup),
        tty=True,
        stop_signal=STOP_SIGNAL,
        labels=dict(blueprint.labels),
        ports=[(port.guest, "tcp") for port in role.ports],
        host_config=_host_config(api, blueprint, composition, info),
        networking_config=connections,
    )
    for network, other in others:
        api.connect_container_to_network(made["Id"], network.id, ipv4_address=other)
    return str(made["Id"])


def _host_config(
    api: docker.APIClient, blueprint: Blueprint, composition: Composition, info: EngineInfo
) -> HostConfig:
    role = blueprint.instance.role
    config = api.create_host_config(
        **_resources(role, info),
        **privileges(composition, role, info),
        cgroupns="private",
        network_mode=blueprint.networks[0][0].engine_name,
        port_bindings=_port_bindings(role),
        mounts=[*_mounts(blueprint.volumes), *_shared_mounts(blueprint.shared)],
        devices=_devices(role, blueprint.disks),
        log_config=LogConfig(type=LogConfig.types.JSON, config=CONSOLE_LOG),
    )
    if role.privileged:
        # Nothing of /proc is hidden; the SDK has no argument for it.
        config |= {"MaskedPaths": [], "ReadonlyPaths": []}
    return config


def _resources(role: Role, info: EngineInfo) -> dict[str, Any]:
    memory = role.memory or info.memory
    options: dict[str, Any] = {"shm_size": memory // 2}
    if role.memory:
        # No swap beside it: the limit is the machine's memory, and beyond it something is killed.
        options |= {"mem_limit": role.memory, "memswap_limit": role.memory}
    if role.cpus:
        options["nano_cpus"] = role.cpus * NANO
    return options


def _port_bindings(role: Role) -> dict[int | str, list[tuple[str, int | None]]]:
    """Ports as docker-py takes them; None for a free one of the host."""
    bindings: dict[int | str, list[tuple[str, int | None]]] = {}
    for port in role.ports:
        bindings.setdefault(port.guest, []).append((LOOPBACK, port.host or None))
    return bindings


def _mounts(volumes: Mapping[str, str]) -> list[Mount]:
    # The engine fills an empty volume with what the image has at that path. Containers are made
    # one after the other, so only one does.
    return [Mount(target=path, source=name, type="volume") for path, name in volumes.items()]


def _shared_mounts(volume: str) -> list[Mount]:
    return [
        Mount(target=path, source=volume, type="volume", no_copy=True)
        for path in (HELD_AT, SHARED_AT)
    ]


def _devices(role: Role, disks: Mapping[str, str]) -> list[str]:
    return [
        *(f"{device}:{device}:rwm" for device in role.devices),
        *(f"{device}:/dev/{name}:rwm" for name, device in disks.items()),
    ]
