"""Private networks of a deployment: bridges in a network namespace that is theirs alone.

Among the host's own devices they would be subject to the host's firewall, and where Docker runs,
that drops what crosses a bridge that is not Docker's. Here nobody else has a say, names clash with
nobody's, and all of it goes with the namespace. The host has an address in each network, at its
end of a link that leads there.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from nxc_testing.backends.host.subnets import gateway
from nxc_testing.errors import DeploymentError

NAMESPACES = Path("/run/netns")
"""Where ip-netns(8) keeps them."""

DEVICES = Path("/sys/class/net")
TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class Port:
    """A machine's end of a link to one of its networks.

    :ivar device: what the machine calls it.
    :ivar peer: the other end, in the switch.
    :ivar bridge: what that end is plugged into.
    """

    device: str
    peer: str
    bridge: str
    address: IPv4Address
    subnet: IPv4Network

    @property
    def hardware_address(self) -> str:
        """Locally administered, and the same at every boot: others remember it for a while."""
        return ":".join(f"{byte:02x}" for byte in (0x02, 0x4E, *self.address.packed))


class Switch:
    """The namespace of one deployment, and the bridges in it.

    :param name: of the namespace, the deployment's.
    """

    def __init__(self, name: str):
        self.name = name

    def make(self) -> None:
        """Make the namespace.

        :raise DeploymentError: if this host does not let us.
        """
        ip("netns", "add", self.name)

    def add(self, number: int, subnet: IPv4Network, *, host: bool) -> str:
        """Make a network.

        :param number: which one of the switch's, from 1 on.
        :param host: whether the host is in it, as the gateway.
        :return: the bridge; its name is that of NixOS' nspawn scripts for the VLAN of that number.
        :raise DeploymentError: if it cannot be made.
        """
        bridge, uplink = f"br{number}", f"up{number}"
        batch(f"link add {bridge} type bridge", f"link set {bridge} up", namespace=self.name)
        if host:
            device = f"{uplinks_of(self.name)}{number}"
            batch(
                f"link add {device} type veth peer name {uplink} netns {self.name}",
                f"address add {gateway(subnet)}/{subnet.prefixlen} broadcast + dev {device}",
                f"link set {device} up",
            )
            batch(f"link set {uplink} master {bridge} up", namespace=self.name)
        return bridge

    def plugging(self, ports: Sequence[Port], *, up: bool) -> tuple[str, str]:
        """How a machine's namespace is linked to its networks, in ip(8)'s batch form.

        :param up: whether the links carry anything yet.
        :return: what is run in the machine's namespace, and then in the switch's.
        """
        inside = ["link set lo up"]
        for port in ports:
            inside += [
                f"link add {port.device} address {port.hardware_address} type veth "
                f"peer name {port.peer} netns {self.name}",
                f"address add {port.address}/{port.subnet.prefixlen} broadcast + dev {port.device}",
                f"link set {port.device} up",
            ]
        state = "up" if up else "down"
        here = [f"link set {port.peer} master {port.bridge} {state}" for port in ports]
        return "".join(f"{line}\n" for line in inside), "".join(f"{line}\n" for line in here)

    def devices(self) -> list[str]:
        """The names of all network devices in it.

        :raise DeploymentError: if it is not there.
        """
        lines = ip("-n", self.name, "-brief", "link", "show").splitlines()
        return [line.split()[0].partition("@")[0] for line in lines]

    def switch(self, ends: Iterable[str], up: bool) -> None:
        """Put links up or down by their ends here.

        :raise DeploymentError: if one is not there.
        """
        state = "up" if up else "down"
        batch(*(f"link set {end} {state}" for end in ends), namespace=self.name)

    def unplug(self, ends: Iterable[str]) -> None:
        """Remove links by their ends here, where the kernel has not done so yet."""
        commands = [f"link delete {end}" for end in ends]
        with suppress(DeploymentError):
            ip("-n", self.name, "-force", "-batch", "-", text="\n".join(commands))

    def remove(self) -> None:
        """Remove it with all that is in it.

        :raise DeploymentError: if it stays.
        """
        for device in devices(uplinks_of(self.name)):
            delete_device(device)
        delete_namespace(self.name)


def uplinks_of(deployment: str) -> str:
    """How the names of the host's ends of a deployment's links begin.

    The kernel takes 15 characters for a name; so this leaves room for a hundred deployments of a
    run and ten networks of each, or ten and a hundred.
    """
    run, _, number = deployment.removeprefix("nxc-").partition("-")
    return f"{uplinks_of_run(run)}{number or 1}-"


def uplinks_of_run(run: str) -> str:
    """How the names of the host's ends of all links of a run begin."""
    return f"nx{run.removeprefix('nxc-')}"


def devices(prefix: str) -> list[str]:
    """The host's network devices whose names begin with something."""
    return sorted(path.name for path in DEVICES.glob(f"{prefix}*"))


def delete_device(device: str) -> None:
    """Remove a network device of the host; several processes may do so at once.

    :raise DeploymentError: if it stays.
    """
    try:
        ip("link", "delete", device)
    except DeploymentError:
        if (DEVICES / device).exists():
            raise


def names() -> list[str]:
    """The names of all namespaces of this host."""
    return sorted(path.name for path in NAMESPACES.iterdir()) if NAMESPACES.is_dir() else []


def delete_namespace(name: str) -> None:
    """Remove a namespace; several processes may do so at once.

    :raise DeploymentError: if it stays.
    """
    try:
        ip("netns", "delete", name)
    except DeploymentError:
        if (NAMESPACES / name).exists():
            raise


def batch(*commands: str, namespace: str = "") -> None:
    """Run commands of ip(8), all or as far as it goes.

    :param namespace: where; the host's own by default.
    :raise DeploymentError: if one fails.
    """
    place = ("-n", namespace) if namespace else ()
    ip(*place, "-batch", "-", text="".join(f"{command}\n" for command in commands))


def ip(*arguments: str, text: str = "") -> str:
    """Run iproute2.

    :param text: its input.
    :return: what it prints.
    :raise DeploymentError: if it fails, with what it says.
    """
    try:
        done = subprocess.run(
            ["ip", *arguments],
            input=text,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip()
        raise DeploymentError(f"ip {' '.join(arguments)}: {said}\n{text}".rstrip()) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeploymentError(f"ip {' '.join(arguments)}: {error}") from error
    return done.stdout
