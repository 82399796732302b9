"""composition.toml: the portable description of a composition, read and validated.

docs/compositions.md says what each key means.
"""

from __future__ import annotations

import math
import os
import re
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from nxc_testing.composition.checks import check_machines
from nxc_testing.composition.identity import room
from nxc_testing.composition.model import (
    Composition,
    Disk,
    Network,
    Port,
    Role,
    ShellMode,
    TestScript,
    Volume,
)
from nxc_testing.tables import Origin, Table, of_type, read_toml, shown, suggestion

FILE_NAME = "composition.toml"
DEFAULT_NETWORK = "lan"

TABLES = ("composition", "test_script", "secrets", "networks", "volumes", "roles", "parameters")
ROLE_KEYS = (
    "image",
    "count",
    "hostnames",
    "networks",
    "addresses",
    "disks",
    "ports",
    "memory",
    "cpus",
    "kernel_parameters",
    "capabilities",
    "devices",
    "privileged",
    "parameters",
    "start_script",
    "backend",
)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
SIZE = re.compile(r"([1-9][0-9]*)([KMGT])")
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
DISK = re.compile(r"vd[b-z]")
KERNEL_PARAMETER = re.compile(r"[!-~]+")
PORT = re.compile(r"([0-9]+):([0-9]+)")
LAST_PORT = 65535
PLAIN_PATH = re.compile(r"(/[^/:,\x00-\x1f]+)+")
SYSTEM_DIRECTORIES = ("/dev", "/etc/nxc", "/proc", "/run", "/sys")

CAPABILITIES = tuple(
    """
    AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE
    DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN
    MAC_OVERRIDE MKNOD NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID
    SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE
    SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM
    """.split()  # noqa: SIM905
)
"""Those of Linux, as capabilities(7) lists them, without `CAP_`."""


def load(path: Path) -> Composition:
    """Read a composition.

    :param path: a composition.toml, or a directory that holds one.
    :return: the composition; equal for equal files.
    :raise ConfigError: for the first thing that is wrong: which file, which key, what is wrong
        and what would be right.
    """
    file = Path(os.path.abspath(path))
    if file.is_dir():
        file /= FILE_NAME
    top = Table(Origin("", file), read_toml(file), TABLES)
    head = top.table("composition", ("name", "description", "image"))
    networks = _networks(top)
    roles = _roles(top, networks, _image(head))
    name = head.get("name", str, file.parent.name)
    _check_plain_name(name, head.at("name"), "it is the directory's name by default; ")
    composition = Composition(
        name=name,
        root=file.parent,
        source=file,
        roles=roles,
        networks=networks,
        volumes=_volumes(top, roles),
        test_script=_test_script(top),
        secrets=_secrets(top),
        parameters=_parameters(top),
        description=head.get("description", str, ""),
    )
    check_machines(composition, {role.name: top.at("roles").at(role.name) for role in roles})
    return composition


def _roles(top: Table, networks: tuple[Network, ...], image: Path | str | None) -> tuple[Role, ...]:
    tables = top.tables("roles", ROLE_KEYS)
    if not tables:
        raise top.at("roles").error("there is no role", "add a table like [roles.server]")
    taken: dict[IPv4Address, str] = {}
    roles = []
    for name, table in tables.items():
        role = _role(name, table, networks, image)
        for place, address in enumerate(role.addresses):
            if address in taken:
                at = table.at("addresses").at(place)
                raise at.error(f"{address} is taken by role {taken[address]}")
            taken[address] = name
        roles.append(role)
    return tuple(roles)


def _role(
    name: str, table: Table, networks: tuple[Network, ...], default_image: Path | str | None
) -> Role:
    start_script = _start_script(table)
    image = "" if start_script else _image(table) or default_image
    if image is None:
        raise table.at("image").error(
            "the role has no image", "give it one, or [composition] one for all roles"
        )
    count, hostnames = _machines(table)
    names = [network.name for network in networks]
    members = table.references("networks", names, "a network") or tuple(names)
    cpus = table.get("cpus", int)
    if cpus is not None and cpus < 1:
        raise table.at("cpus").error(f"{cpus} is too few", "write 1 or more")
    memory = table.data.get("memory")
    return Role(
        name=name,
        image=image,
        count=count,
        hostnames=hostnames,
        addresses=_addresses(table, networks[names.index(members[0])], count),
        networks=members,
        disks=_disks(table),
        ports=_ports(table),
        memory=None if memory is None else parse_size(memory, table.at("memory")),
        cpus=cpus,
        kernel_parameters=_kernel_parameters(table),
        capabilities=_capabilities(table),
        devices=_devices(table),
        privileged=table.get("privileged", bool, False),
        parameters=_parameters(table),
        start_script=start_script,
        backend=table.get("backend", str, ""),
    )


def _machines(table: Table) -> tuple[int, tuple[str, ...]]:
    """How many machines a role has, and their names if they have been given any."""
    hostnames = table.array("hostnames", str)
    count = table.get("count", int, len(hostnames) or 1)
    if count < 0:
        raise table.at("count").error(f"{count} is too few", "write 0 or more")
    if hostnames and count != len(hostnames):
        raise table.at("count").error(
            f"{count} is not the number of hostnames, {len(hostnames)}",
            "leave it out where hostnames are given",
        )
    return count, hostnames


def _image(table: Table) -> Path | str | None:
    """A recipe's path, the name of a ready image, or None for a table without one."""
    text = table.get("image", str)
    if text is None:
        return None
    at = table.at("image")
    if text.endswith(".toml"):
        return _existing_file(at, text)
    if not text or text != text.strip() or text.startswith(("/", ".", "~")):
        raise at.error(
            f"{shown(text)} is neither a recipe nor the name of an image",
            'a recipe is a file whose name ends in .toml; an image is named like "debian:12"',
        )
    return text


def _start_script(table: Table) -> str:
    """The path of a start script, absolute; empty for a role without one."""
    text = table.get("start_script", str, "")
    at = table.at("start_script")
    if text and "image" in table.data:
        raise at.error("the role has an image too", "a start script brings its own: name one")
    if text.replace("{name}", "").count("{"):
        raise at.error(f"{shown(text)} has a brace", "only {name} is replaced, by the machine's")
    assert table.origin.file is not None
    return os.path.abspath(table.origin.file.parent / text) if text else ""


def _existing_file(at: Origin, text: str) -> Path:
    assert at.file is not None
    file = Path(os.path.abspath(at.file.parent / text))
    if not file.is_file():
        raise at.error(f"there is no file {file}", f"paths are relative to {at.file.parent}")
    return file


def _networks(top: Table) -> tuple[Network, ...]:
    tables = top.tables("networks", ("subnet",))
    networks: list[Network] = []
    for name, table in tables.items():
        _check_plain_name(name, table.origin)
        text = table.get("subnet", str)
        subnet = None if text is None else _subnet(table.at("subnet"), text)
        for other in networks:
            if subnet and other.subnet and subnet.overlaps(other.subnet):
                raise table.at("subnet").error(
                    f"{subnet} overlaps {other.subnet} of network {other.name}"
                )
        networks.append(Network(name, subnet))
    return tuple(networks) or (Network(DEFAULT_NETWORK),)


def _subnet(at: Origin, text: str) -> IPv4Network:
    try:
        subnet = IPv4Network(text, strict=False)
    except ValueError as error:
        raise at.error(
            f"{shown(text)} is not an IPv4 subnet", 'write it like "192.168.1.0/24"'
        ) from error
    if str(subnet) != text:
        raise at.error(f"{shown(text)} is not how a subnet is written", f'write "{subnet}"')
    if room(subnet) < 1:
        raise at.error(f"{subnet} has no room for a machine", "the longest prefix is /30")
    if subnet.is_loopback or subnet.is_multicast or subnet.is_reserved or subnet.is_link_local:
        raise at.error(f"{subnet} is not for machines", 'take a private one, like "10.1.2.0/24"')
    return subnet


def _addresses(table: Table, primary: Network, count: int) -> tuple[IPv4Address, ...]:
    """The addresses that the role's first machines have in its first network."""
    at = table.at("addresses")
    texts = table.elements("addresses", str)
    if texts and primary.subnet is None:
        raise at.error(
            f"network {primary.name} has no fixed subnet",
            f'give it one: [networks.{primary.name}] subnet = "192.168.1.0/24"',
        )
    if len(texts) > count:
        raise at.error(f"there are {len(texts)} for {count} machines", "take some away")
    return tuple(_address(at, text, primary) for at, text in texts)


def _address(at: Origin, text: str, network: Network) -> IPv4Address:
    subnet = network.subnet
    assert subnet is not None
    first, last = subnet[1], subnet[room(subnet)]
    try:
        address = IPv4Address(text)
    except ValueError as error:
        raise at.error(
            f"{shown(text)} is not an IPv4 address", f'write it like "{first}"'
        ) from error
    if not first <= address <= last:
        raise at.error(
            f"{address} is not an address for a machine in network {network.name} ({subnet})",
            f"the first is {first}, the last {last}, and {last + 1} is the gateway's",
        )
    return address


def _volumes(top: Table, roles: tuple[Role, ...]) -> tuple[Volume, ...]:
    names = [role.name for role in roles]
    volumes: list[Volume] = []
    for name, table in top.tables("volumes", ("path", "roles")).items():
        _check_plain_name(name, table.origin)
        path = table.require("path", str)
        volume = Volume(name, path, table.references("roles", names, "a role"))
        _check_mount_point(table.at("path"), path)
        for other in volumes:
            shared = set(volume.roles or names) & set(other.roles or names)
            if other.path == path and shared:
                raise table.at("path").error(
                    f"volume {other.name} is mounted at {path} too, on role {min(shared)}"
                )
        volumes.append(volume)
    return tuple(volumes)


def _check_mount_point(at: Origin, path: str) -> None:
    if path != "/" and not _is_plain_path(path):
        raise at.error(
            f"{shown(path)} cannot be mounted at",
            'write an absolute path in its shortest form, without `:` and `,`, like "/users"',
        )
    for system in SYSTEM_DIRECTORIES:
        if os.path.commonpath((path, system)) in (path, system):
            raise at.error(
                f"a volume at {path} would hide what the system keeps in {system}",
                'choose a directory of its own, like "/users"',
            )


def _disks(table: Table) -> tuple[Disk, ...]:
    disks = table.table("disks")
    for name in disks.data:
        if not DISK.fullmatch(name):
            raise disks.at(name).error(
                f"{shown(name)} cannot be the name of a disk",
                "disks are vdb to vdz; vda is the root disk of a virtual machine",
            )
    return tuple(
        Disk(name, parse_size(value, disks.at(name))) for name, value in disks.data.items()
    )


def _ports(table: Table) -> tuple[Port, ...]:
    at = table.at("ports")
    ports: list[Port] = []
    for place, value in enumerate(table.get("ports", list, [])):
        port = _port(at.at(place), value)
        if port in ports:
            raise at.at(place).error(f"{shown(value)} stands there twice")
        ports.append(port)
    return tuple(ports)


def _port(at: Origin, value: object) -> Port:
    port = None
    if isinstance(value, int) and not isinstance(value, bool):
        port = Port(value)
    elif isinstance(value, str) and (pair := PORT.fullmatch(value)):
        port = Port(guest=int(pair[2]), host=int(pair[1]))
        if not port.host:
            raise at.error(f"{shown(value)} names port 0 of the host", f"write {port.guest}")
    if port is None or not (1 <= port.guest <= LAST_PORT and port.host <= LAST_PORT):
        raise at.error(
            f"{shown(value)} is not a port",
            'write the machine\'s port, like 80, or "host:machine", like "8080:80"; '
            f"ports end at {LAST_PORT}",
        )
    return port


def _capabilities(table: Table) -> tuple[str, ...]:
    names = table.elements("capabilities", str)
    for at, name in names:
        if name not in CAPABILITIES:
            raise at.error(
                f"{shown(name)} is not the name of a Linux capability",
                suggestion(name.upper().removeprefix("CAP_"), CAPABILITIES),
            )
    return tuple(name for _, name in names)


def _kernel_parameters(table: Table) -> tuple[str, ...]:
    parameters = table.elements("kernel_parameters", str)
    for origin, parameter in parameters:
        if not KERNEL_PARAMETER.fullmatch(parameter):
            raise origin.error(
                f"{shown(parameter)} is not one parameter of a kernel",
                'like "nosmt" or "panic=5", without blanks',
            )
    return tuple(parameter for _, parameter in parameters)


def _devices(table: Table) -> tuple[str, ...]:
    paths = table.elements("devices", str)
    for at, path in paths:
        if not (path.startswith("/dev/") and _is_plain_path(path)):
            raise at.error(
                f"{shown(path)} is not the path of a device", 'write it like "/dev/fuse"'
            )
    return tuple(path for _, path in paths)


def _is_plain_path(path: str) -> bool:
    """Whether a path is absolute, in its shortest form, and safe in anybody's mount options."""
    return bool(PLAIN_PATH.fullmatch(path)) and os.path.normpath(path) == path


def _test_script(top: Table) -> TestScript | None:
    if "test_script" not in top.data:
        return None
    table = top.table("test_script", ("file", "shell", "allow_empty"))
    shell = table.get("shell", str, ShellMode.STRICT.value)
    modes = [mode.value for mode in ShellMode]
    if shell not in modes:
        raise table.at("shell").error(f"there is no mode {shown(shell)}", suggestion(shell, modes))
    return TestScript(
        file=_existing_file(table.at("file"), table.get("file", str, "test_script.py")),
        shell=ShellMode(shell),
        allow_empty=table.get("allow_empty", bool, False),
    )


def _secrets(top: Table) -> dict[str, str | None]:
    table = top.table("secrets")
    secrets: dict[str, str | None] = {}
    for name, value in table.data.items():
        _check_plain_name(name, table.at(name))
        if value is not True and (not isinstance(value, str) or not value):
            raise table.at(name).error(
                "a secret is true or a string that is not empty",
                "true draws a new one for each deployment; a string pins it",
            )
        secrets[name] = None if value is True else value
    return secrets


def _parameters(table: Table) -> dict[str, Any]:
    """Free data, which must survive the way into deployment.json."""
    parameters = table.table("parameters")
    for key, value in parameters.data.items():
        _check_json(parameters.at(key), value)
    return dict(parameters.data)


def _check_json(at: Origin, value: object) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_json(at.at(key), inner)
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            _check_json(at.at(place), inner)
    elif not isinstance(value, str | int | float) or (
        isinstance(value, float) and not math.isfinite(value)
    ):
        raise at.error(f"JSON has no form for {value}", "write it as a string")


def _check_plain_name(name: str, at: Origin, origin: str = "") -> None:
    if not NAME.fullmatch(name):
        raise at.error(
            f"{shown(name)} cannot be a name here",
            f"{origin}write 1 to 63 letters, digits and `_.-`, and first a letter or a digit",
        )


def parse_size(value: object, at: Origin) -> int:
    """A size in bytes.

    :param value: a string like `2G` or `512M`; K, M, G and T are powers of 1024.
    :param at: where it stands.
    :raise ConfigError: if it is anything else.
    """
    size = SIZE.fullmatch(of_type(at, value, str))
    if not size:
        raise at.error(f"{shown(value)} is not a size", 'write a number and K, M, G or T: "512M"')
    return int(size[1]) * UNITS[size[2]]
