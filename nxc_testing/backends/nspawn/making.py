"""From a plan to a deployment: networks, volumes, disks and root directories."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from nxc_testing.backends import start_scripts
from nxc_testing.backends.base import HELD_AT, SHARED_AT
from nxc_testing.backends.host import disks, storage, subnets
from nxc_testing.backends.host.provision import RESOLV_CONF, archive, hosts_file
from nxc_testing.backends.host.switch import Port
from nxc_testing.backends.nspawn import command
from nxc_testing.backends.nspawn.cgroups import Group
from nxc_testing.backends.nspawn.deployment import NspawnDeployment
from nxc_testing.backends.nspawn.links import MachineLinks, OwnLinks, ScriptLinks
from nxc_testing.backends.nspawn.node import Blueprint, NspawnNode
from nxc_testing.backends.nspawn.removal import DISKS, MACHINES, VOLUMES, Facts
from nxc_testing.composition import Instance, MachinePlan, Network, Plan, Segment
from nxc_testing.composition.identity import (
    PUBLIC,
    Addresses,
    MachineFile,
    assign_addresses,
    hosts_entries,
    machine_files,
)
from nxc_testing.errors import DeploymentError, ImageError
from nxc_testing.images import Image
from nxc_testing.images.roots import unpacked
from nxc_testing.session import LABEL_KEPT, Session

SHARED, LOCKS = "shared", "locks"
"""Folders in a deployment's directory: one that machines see, one that start scripts see."""

UNKNOWN_TO_SCRIPTS = ("disks", "ports", "devices", "capabilities", "privileged")


def deploy(plan: Plan, session: Session) -> NspawnDeployment:
    """Make everything that a plan's machines need, and the machines; nothing is started.

    :raise NxcError: if it cannot be done; nothing is left then.
    """
    maker = Maker(plan, session)
    try:
        maker.make()
    except BaseException as error:
        try:
            maker.deployment.close()
        except DeploymentError as another:
            error.add_note(f"and then: {another}")
        raise
    return maker.deployment


class Maker:
    """Makes one deployment, step by step; what it has made is the deployment's at once."""

    def __init__(self, plan: Plan, session: Session):
        self._plan, self._session = plan, session
        self._composition = plan.composition
        self._kept = LABEL_KEPT in session.labels
        self.deployment = NspawnDeployment(session, plan)
        self._directory = self.deployment.directory
        self._roots: dict[Image, Path] = {}
        self._networks: dict[str, tuple[str, IPv4Network]] = {}
        self._with_host: set[str] = set()
        self._volumes: dict[str, Path] = {}
        self._addresses: Addresses = {}

    def make(self) -> None:
        """See `deploy`."""
        self._check()
        for machine in self._plan.own:
            if not machine.instance.role.start_script:
                self._root(machine)
        self.deployment.announce()
        storage.prepare(self._directory, str(self._session.owner))
        facts = Facts(
            self._composition.name, self.deployment.machines, self._kept, made=time.time()
        )
        facts.write(self._directory)
        for folder in (MACHINES, VOLUMES, DISKS, SHARED, LOCKS):
            (self._directory / folder).mkdir()
        (self._directory / SHARED).chmod(0o755)
        self._make_networks()
        self._addresses = assign_addresses(
            self._composition, {name: subnet for name, (_, subnet) in self._networks.items()}
        )
        self._make_volumes()
        for machine in self._plan.own:
            self._make_machine(machine)

    def _check(self) -> None:
        """Meet what the user has to change before anything is made."""
        for instance in (machine.instance for machine in self._plan.own):
            command.capabilities(self._composition, instance.role)
            if instance.role.start_script:
                start_scripts.check(self._composition, instance, "nspawn", UNKNOWN_TO_SCRIPTS)

    def _root(self, machine: MachinePlan) -> Path:
        """The directory that a machine's image was unpacked into."""
        image = machine.image
        if not isinstance(image, Image):
            raise ImageError(
                f"role {machine.instance.role.name}: systemd-nspawn has no images of its own, and "
                f"so none called {image!r}: name a recipe"
            )
        if image not in self._roots:
            self._roots[image] = unpacked(image, self._session.progress)
        return self._roots[image]

    def _make_networks(self) -> None:
        subnets.lock_fixed(self._composition, self._session, self.deployment.locks)
        self.deployment.switch.make()
        # From the look for a free one until it is taken.
        with self._session.lock("subnets"):
            for number, network in enumerate(self._composition.networks, 1):
                scripted = any(
                    one.role.start_script and network.name in one.role.networks
                    for one in self._composition.instances()
                )
                subnet = self._subnet(
                    network, start_scripts.NIXOS.format(number) if scripted else None
                )
                bridge = self.deployment.switch.add(number, subnet, host=not scripted)
                self._networks[network.name] = bridge, subnet
                segment = Segment(subnet, bridge, self.deployment.switch.name)
                self.deployment.networks[network.name] = segment
                if not scripted:
                    self._with_host.add(network.name)

    def _subnet(self, network: Network, scripted: str | None) -> IPv4Network:
        """A network's subnet.

        :param scripted: what start scripts have there; the host has no part in it then.
        """
        if scripted:
            return network.subnet or IPv4Network(scripted)
        occupants = list(subnets.host_ranges())
        if network.subnet is not None:
            subnets.check_free(network.name, network.subnet, occupants)
            return network.subnet
        members = sum(network.name in one.role.networks for one in self._composition.instances())
        for subnet in subnets.candidates(members):
            if not any(subnet.overlaps(one.range) for one in occupants):
                return subnet
        raise DeploymentError(
            f"network {network.name}: no subnet of {subnets.POOL} is free on this host"
        )

    def _make_volumes(self) -> None:
        """Directories that begin with what the first image that has their paths holds there."""
        for volume in self._composition.volumes:
            directory = self._volumes[volume.name] = self._directory / VOLUMES / volume.name
            users = (m for m in self._plan.own if self._mounts(volume.roles, m.instance))
            for machine in users:
                content = self._root(machine) / volume.path.lstrip("/")
                if content.is_dir():
                    _run("cp", "--archive", str(content), str(directory))
                    break
            else:
                _make_directories(directory)

    def _mounts(self, roles: Sequence[str], instance: Instance) -> bool:
        return not roles or instance.role.name in roles

    def _make_disks(self, instance: Instance) -> dict[str, str]:
        """The host's devices of a machine's disks, by the machine's names."""
        folder = self._directory / DISKS
        return {
            disk.name: disks.attach(folder / f"{instance.name}-{disk.name}", disk)
            for disk in instance.role.disks
        }

    def _make_machine(self, machine: MachinePlan) -> None:
        instance, switch = machine.instance, self.deployment.switch
        own = self._addresses[instance.name]
        directory = self._directory / MACHINES / instance.name
        devices: list[str] = []
        links: MachineLinks
        if instance.role.start_script:
            _make_directories(directory, "root", "run", "work")
            links = ScriptLinks(switch, instance.name)
            starting = command.script_command(
                start_scripts.script_of(self._composition, instance, "nspawn"),
                switch=switch.name,
                shared=self._directory / SHARED,
                locks=self._directory / LOCKS,
            )
        else:
            self._make_files(machine, directory)
            links = OwnLinks(switch, self._ports(instance, own))
            disks_by_name = self._make_disks(instance)
            devices += disks_by_name.values()
            starting = self._own_command(instance, disks_by_name)
        blueprint = Blueprint(
            role=instance.role,
            directory=directory,
            shared=self._directory / SHARED,
            notify=self._directory / f"notify-{instance.rank}",
            command=starting,
            environment=command.environment(self.deployment.name, instance.role),
            capabilities=command.capabilities(self._composition, instance.role),
            host_address=next((own[name] for name in own if name in self._with_host), None),
            disks=devices,
            kept=self._kept,
        )
        group = Group(f"{self.deployment.name}-{instance.name}")
        self.deployment.add(NspawnNode(instance.name, own, blueprint, group=group, links=links))

    def _own_command(self, instance: Instance, devices: Mapping[str, str]) -> list[str]:
        return command.command(
            instance,
            switch=self.deployment.switch.name,
            capabilities=command.capabilities(self._composition, instance.role),
            volumes={
                volume.path: self._volumes[volume.name]
                for volume in self._composition.volumes
                if self._mounts(volume.roles, instance)
            }
            | dict.fromkeys((HELD_AT, SHARED_AT), self._directory / SHARED),
            disks=devices,
        )

    def _ports(self, instance: Instance, own: Mapping[str, str]) -> list[Port]:
        """A machine's links, in the order of the composition's networks."""
        ports: list[Port] = []
        for name in (name for name in self._networks if name in own):
            bridge, subnet = self._networks[name]
            device, peer = f"eth{len(ports)}", f"m{instance.rank}-{len(ports)}"
            ports.append(Port(device, peer, bridge, IPv4Address(own[name]), subnet))
        return ports

    def _make_files(self, machine: MachinePlan, directory: Path) -> None:
        """A root directory that shows the image's, and keeps for itself what is changed."""
        instance = machine.instance
        upper = directory / "upper"
        _make_directories(directory, "root", "upper", "work", "upper/etc")
        (directory / "lower").symlink_to(self._root(machine))
        files = machine_files(self._plan, machine, self._addresses)
        for name, text in (
            ("hosts", hosts_file(hosts_entries(self._plan, self._addresses)).decode()),
            ("hostname", f"{instance.name}\n"),
            ("resolv.conf", f"{RESOLV_CONF}\n"),
        ):
            files[f"/etc/{name}"] = MachineFile(text.encode(), PUBLIC)
        _run("tar", "--extract", "--same-permissions", f"--directory={upper}", given=archive(files))


def _make_directories(directory: Path, *names: str) -> None:
    """Make a directory, and more in it, as they are in any system's root."""
    for made in (directory, *(directory / name for name in names)):
        made.mkdir()
        made.chmod(0o755)


def _run(*arguments: str, given: bytes = b"") -> None:
    try:
        subprocess.run(arguments, input=given, capture_output=True, check=True)
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip()
        raise DeploymentError(f"{' '.join(arguments)}: {said}") from error
