"""The composition: what is tested, in the field's terms. Every source gives this model."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

NAMESPACE = uuid.UUID("6b1f7d4e-0f0a-5c63-9a53-0c5a7e1c7a10")


class ShellMode(Enum):
    """How a composition's commands run.

    STRICT is the NixOS test driver's `set -euo pipefail`; NXC is nixos-compose's: not strict,
    a login environment, the home as working directory.
    """

    STRICT = "strict"
    NXC = "nxc"


@dataclass(frozen=True, slots=True)
class Network:
    """A private network. Without a subnet one is chosen that is free on the host."""

    name: str
    subnet: IPv4Network | None = None


@dataclass(frozen=True, slots=True)
class Volume:
    """A directory that machines share.

    :ivar path: where it is mounted.
    :ivar roles: the roles that mount it; empty means all.
    """

    name: str
    path: str
    roles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Disk:
    """An empty block device of one machine.

    :ivar name: as it appears, `vdb` for /dev/vdb.
    :ivar size: bytes.
    """

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a machine published on the host's loopback; host 0 takes a free one."""

    guest: int
    host: int = 0


@dataclass(frozen=True, slots=True)
class Role:
    """A kind of machine and how many there are of it.

    :ivar image: a recipe's path, or the name of an image the backend has already; empty where
        there is a start script.
    :ivar backend: what its machines are, where that differs from the other roles'; else empty.
    :ivar start_script: what starts a machine by itself, by the NixOS test driver's contract, with
        `{name}` for the machine's name; empty if the backend does.
    :ivar count: how many, unless `hostnames` names them one by one.
    :ivar hostnames: the hosts' names where the user gave a list; else empty.
    :ivar addresses: fixed addresses in the first network, of the first instances; may be empty.
    :ivar networks: names; the first is the primary one, whose addresses stand in /etc/hosts.
    :ivar memory: bytes; None for the backend's default.
    :ivar cpus: None for the backend's default.
    :ivar kernel_parameters: for machines that boot a kernel of their own.
    :ivar capabilities: Linux capabilities beyond the least, as the user asked for them.
    :ivar devices: host devices passed in, like `/dev/fuse`.
    """

    name: str
    image: Path | str
    count: int = 1
    hostnames: tuple[str, ...] = ()
    addresses: tuple[IPv4Address, ...] = ()
    networks: tuple[str, ...] = ()
    disks: tuple[Disk, ...] = ()
    ports: tuple[Port, ...] = ()
    memory: int | None = None
    cpus: int | None = None
    kernel_parameters: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    privileged: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)
    start_script: str = ""
    backend: str = ""


@dataclass(frozen=True, slots=True)
class TestScript:
    """Where the test script is, and how its commands run.

    :ivar file: the file that holds it.
    :ivar allow_empty: whether a script without a statement is meant.
    """

    __test__ = False

    file: Path
    shell: ShellMode = ShellMode.STRICT
    allow_empty: bool = False


@dataclass(frozen=True, slots=True)
class Instance:
    """One machine of a role.

    :ivar name: the host's name.
    :ivar index: 1-based within its role.
    :ivar rank: 1-based within the composition, by sorted name, as NixOS numbers its nodes.
    :ivar aliases: other names for the same host, like `node1` for a lone `node`.
    :ivar uuid: stable for the project and the name.
    """

    name: str
    role: Role
    index: int
    rank: int
    aliases: tuple[str, ...]
    uuid: uuid.UUID


@dataclass(frozen=True, slots=True)
class Composition:
    """What is tested.

    :ivar root: its directory.
    :ivar source: the file that describes it.
    :ivar secrets: names of secrets that every instance gets, with a pinned value or None.
    :ivar parameters: free data, handed to every machine in /etc/nxc/deployment.json.
    """

    name: str
    root: Path
    source: Path
    roles: tuple[Role, ...]
    networks: tuple[Network, ...]
    volumes: tuple[Volume, ...] = ()
    test_script: TestScript | None = None
    secrets: Mapping[str, str | None] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""

    def instances(self) -> tuple[Instance, ...]:
        """Every machine, in the order of the roles."""
        named: list[tuple[str, Role, int, tuple[str, ...]]] = []
        for role in self.roles:
            hosts: list[tuple[str, tuple[str, ...]]]
            if role.hostnames:
                hosts = [(name, ()) for name in role.hostnames]
            elif role.count == 1:
                hosts = [(role.name, (f"{role.name}1",))]
            else:
                hosts = [(f"{role.name}{i}", ()) for i in range(1, role.count + 1)]
            named += [(name, role, i, aliases) for i, (name, aliases) in enumerate(hosts, 1)]
        ranks = {name: rank for rank, name in enumerate(sorted(n for n, *_ in named), 1)}
        return tuple(
            Instance(name, role, index, ranks[name], aliases, self.uuid_of(name))
            for name, role, index, aliases in named
        )

    def uuid_of(self, host: str) -> uuid.UUID:
        """The stable identity of a host: the same in every deployment of this composition."""
        return uuid.uuid5(NAMESPACE, f"{self.name}/{host}")
