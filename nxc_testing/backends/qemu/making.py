"""From a plan to a deployment: networks, volumes, disks and machines."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from itertools import islice
from pathlib import Path

from nxc_testing.backends import start_scripts
from nxc_testing.backends.base import HELD_AT, SHARED_AT
from nxc_testing.backends.host.provision import RESOLV_CONF, hosts_file
from nxc_testing.backends.host.subnets import candidates, gateway
from nxc_testing.backends.qemu import acceleration, helpers
from nxc_testing.backends.qemu.acceleration import Verdict
from nxc_testing.backends.qemu.command import MEMORY, Hardware
from nxc_testing.backends.qemu.deployment import QemuDeployment
from nxc_testing.backends.qemu.helpers import Switch, VdeSwitch, share, virtiofsd
from nxc_testing.backends.qemu.launch import ImageLauncher
from nxc_testing.backends.qemu.node import QemuNode
from nxc_testing.backends.qemu.removal import IMAGE
from nxc_testing.backends.qemu.script import ScriptLauncher, ScriptMachine
from nxc_testing.composition import Instance, MachinePlan, Network, Plan, Volume
from nxc_testing.composition.identity import (
    PUBLIC,
    Addresses,
    MachineFile,
    assign_addresses,
    hosts_entries,
    machine_files,
)
from nxc_testing.errors import ConfigError, DeploymentError, ImageError
from nxc_testing.images import Image, cpio
from nxc_testing.images.cache import NAMESPACES, Cache
from nxc_testing.images.vm import VmImage, into_vm
from nxc_testing.session import Session

FIRST_EXTRA_DISK = ord("b")

SHARED = "shared"
"""The directory that all machines share, in the deployment's, and its tag."""

UNKNOWN_TO_SCRIPTS = ("disks",)


@dataclass(frozen=True, slots=True)
class Share:
    """A directory of the host in a machine.

    :ivar paths: where it is mounted.
    """

    directory: Path
    paths: Sequence[str]


def deploy(plan: Plan, session: Session) -> QemuDeployment:
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
        self.deployment = QemuDeployment(session, plan)
        self._images: dict[Image, VmImage] = {}
        self._subnets: dict[str, IPv4Network] = {}
        self._addresses: Addresses = {}
        self._volumes: dict[str, Path] = {}
        self._shared_dir = plan.shared_dir or self.deployment.directory / SHARED
        self._accelerator = ""

    def make(self) -> None:
        """See `deploy`."""
        self._check()
        for machine in self._with_images:
            image = _recipe_image(machine)
            if image not in self._images:
                self._images[image] = into_vm(image, self._session.progress)
        self._accelerator = self._choose_accelerator()
        self._choose_subnets()
        self._addresses = assign_addresses(self._composition, self._subnets)
        self.deployment.announce()
        self._make_volumes()
        self._make_switches()
        for number, machine in enumerate(self._plan.own, 1):
            # By number: the paths of sockets are short.
            directory = self.deployment.directory / str(number)
            directory.mkdir()
            scripted = _has_script(machine)
            make = self._by_script if scripted else self._from_image
            node = QemuNode(
                machine.instance.name,
                self._addresses[machine.instance.name],
                directory,
                make(directory, machine),
                self._shared_dir if scripted or virtiofsd() else None,
            )
            self.deployment.add(node)
            for port in machine.instance.role.ports:
                node.publish(port.guest, port.host)

    @property
    def _with_images(self) -> list[MachinePlan]:
        return [one for one in self._plan.own if not _has_script(one)]

    def _check(self) -> None:
        """Meet what the user has to change before anything is made."""
        for instance in (machine.instance for machine in self._plan.own):
            if instance.role.start_script:
                start_scripts.check(self._composition, instance, "vm", UNKNOWN_TO_SCRIPTS)
                if not shutil.which(helpers.VDE_SWITCH):
                    raise DeploymentError(
                        f"the networks of start scripts are carried by {helpers.VDE_SWITCH}, "
                        "which this host does not have: apt-get install vde2"
                    )
        if self._composition.volumes and virtiofsd() is None:
            raise DeploymentError(
                "volumes are shared by virtiofsd, which this host does not have: "
                "apt-get install virtiofsd (Debian 13), or qemu-system-common (Debian 12)"
            )
        for role in self._composition.roles:
            names = sorted(disk.name for disk in role.disks)
            expected = [f"vd{chr(FIRST_EXTRA_DISK + i)}" for i in range(len(names))]
            if names != expected:
                raise ConfigError(
                    f"a virtual machine with {len(names)} disks calls them {', '.join(expected)}",
                    file=self._composition.source,
                    key=f"roles.{role.name}.disks",
                    hint="give them these names",
                )

    def _choose_accelerator(self) -> str:
        """How machines are run; empty where there are start scripts only, and nobody knows."""
        if self._images:
            image, vm = next(iter(self._images.items()))
            verdict: Verdict | None = acceleration.choose(vm, Cache.of(image))
        else:
            verdict = acceleration.known(Cache())
        if verdict is None:
            return ""
        if verdict.accelerator != "kvm":
            self._session.progress("qemu", verdict.reason)
        return verdict.accelerator

    def _choose_subnets(self) -> None:
        """Subnets that differ from each other; nobody else meets them."""
        self._subnets = {name: one.subnet for name, one in self._plan.segments.items()}
        for number, network in enumerate(self._composition.networks, 1):
            if network.name not in self._subnets and self._is_vlan(network):
                nixos = IPv4Network(start_scripts.NIXOS.format(number))
                self._subnets[network.name] = network.subnet or nixos
        fixed = [network.subnet for network in self._composition.networks if network.subnet]
        for network in self._composition.networks:
            if network.name in self._subnets:
                continue
            members = sum(
                network.name in one.role.networks for one in self._composition.instances()
            )
            taken = [*fixed, *self._subnets.values()]
            self._subnets[network.name] = network.subnet or next(
                subnet
                for subnet in candidates(members)
                if not any(subnet.overlaps(other) for other in taken)
            )

    def _is_vlan(self, network: Network) -> bool:
        """Whether start scripts are in a network; others cannot be there too.

        :raise ConfigError: if they are.
        """
        members = [one for one in self._plan.machines if network.name in one.instance.role.networks]
        scripted = [one for one in members if one in self._plan.own and _has_script(one)]
        others = [one for one in members if one not in scripted]
        if scripted and others:
            raise ConfigError(
                f"role {scripted[0].instance.role.name} has a start script, and role "
                f"{others[0].instance.role.name} has not: they cannot be in one network",
                file=self._composition.source,
                key=f"networks.{network.name}",
                hint="give them networks of their own",
            )
        return bool(scripted)

    def _make_switches(self) -> None:
        deployment = self.deployment
        if self._images:
            deployment.switch = Switch(deployment.directory, deployment.environment)
            for name, segment in self._plan.segments.items():
                deployment.join(name, segment)
        members = len(self._plan.machines)
        for number, network in enumerate(self._composition.networks, 1):
            if self._is_vlan(network):
                place = deployment.directory / f"vde{number}.ctl"
                deployment.vlans[network.name] = VdeSwitch(place, members, deployment.environment)

    def _make_volumes(self) -> None:
        if self._plan.shared_dir is None:
            _make_directory(self._shared_dir)
        for volume in self._composition.volumes:
            directory = self.deployment.directory / f"volume-{volume.name}"
            _make_directory(directory)
            self._volumes[volume.name] = directory
            first = next((one for one in self._with_images if _mounts(one, volume)), None)
            if first:
                _fill(directory, _recipe_image(first), volume)

    def _by_script(self, directory: Path, machine: MachinePlan) -> ScriptLauncher:
        instance, deployment = machine.instance, self.deployment
        state = directory / "state"
        state.mkdir()
        # Where upstream's scripts look for it; on a disk, as the run's directory may not be.
        known_as = self._session.directory / f"vm-state-{instance.name}"
        known_as.unlink(missing_ok=True)
        known_as.symlink_to(state)
        numbers = {one.name: i for i, one in enumerate(self._composition.networks, 1)}
        script = ScriptMachine(
            name=instance.name,
            script=start_scripts.script_of(self._composition, instance, "vm"),
            role=instance.role,
            directory=directory,
            state=state,
            shared=self._shared_dir,
            vlans={numbers[n]: deployment.vlans[n].directory for n in instance.role.networks},
            # A script takes KVM where it seems to be there.
            accelerator="" if self._accelerator == "kvm" else self._accelerator,
        )
        return ScriptLauncher(script, deployment.environment)

    def _from_image(self, directory: Path, machine: MachinePlan) -> ImageLauncher:
        instance, deployment = machine.instance, self.deployment
        image, role = self._images[_recipe_image(machine)], instance.role
        shares = self._shares(machine)
        sockets = {tag: directory / tag for tag in shares}
        (directory / IMAGE).symlink_to(image.disk.parent)
        own = self._addresses[instance.name]
        hardware = Hardware(
            name=instance.name,
            uuid=str(instance.uuid),
            image=image,
            initrd=self._make_initrd(directory, machine, shares),
            root=_overlay(directory / "root.qcow2", image.disk),
            accelerator=self._accelerator,
            networks=[IPv4Address(address) for address in own.values()],
            disks=_make_disks(directory, instance),
            volumes=sockets,
            memory=role.memory or MEMORY,
            cpus=role.cpus or 1,
            parameters=role.kernel_parameters,
        )

        def prepare() -> list[socket.socket]:
            assert deployment.switch
            for tag, one in shares.items():
                share(one.directory, sockets[tag], deployment.environment)
            return [deployment.switch.plug(network) for network in own]

        def forward(host_port: int, guest_port: int) -> None:
            network, address = next(iter(own.items()))
            subnet = self._subnets[network]
            first, second = self._unused(network)
            # In a network that is not this deployment's alone the usual place is taken.
            host = second if network in self._plan.segments else gateway(subnet)
            way = deployment.gateway(network, subnet, host, first)
            way.forward(host_port, IPv4Address(address), guest_port)

        return ImageLauncher(
            hardware, directory, deployment.environment, prepare=prepare, forward=forward
        )

    def _shares(self, machine: MachinePlan) -> dict[str, Share]:
        """The directories of the host that a machine mounts, by their tags."""
        shares = {
            f"volume{i}": Share(self._volumes[volume.name], (volume.path,))
            for i, volume in enumerate(self._composition.volumes)
            if _mounts(machine, volume)
        }
        if virtiofsd():
            shares[SHARED] = Share(self._shared_dir, (HELD_AT, SHARED_AT))
        return shares

    def _unused(self, network: str) -> list[IPv4Address]:
        """Two addresses in a network that are neither a machine's nor anybody's else.

        The last one before the gateway's is where containers of Docker look for the way out.
        """
        subnet = self._subnets[network]
        used = {own.get(network) for own in self._addresses.values()}
        free = (
            address
            for i in range(subnet.num_addresses - 3, 0, -1)
            if str(address := subnet[i]) not in used
        )
        return list(islice(free, 3))[-2:]

    def _make_initrd(
        self, directory: Path, machine: MachinePlan, shares: Mapping[str, Share]
    ) -> Path:
        """The image's RAM disk, and behind it what this machine is told of itself."""
        name, own = machine.instance.name, self._addresses[machine.instance.name]
        files = {
            **machine_files(self._plan, machine, self._addresses),
            "/etc/hostname": MachineFile(f"{name}\n".encode(), PUBLIC),
            "/etc/resolv.conf": MachineFile(f"{RESOLV_CONF}\n".encode(), PUBLIC),
            "/etc/hosts": MachineFile(
                hosts_file(hosts_entries(self._plan, self._addresses)), PUBLIC
            ),
        }
        links = "".join(
            f"eth{i} {address}/{self._subnets[network].prefixlen}\n"
            for i, (network, address) in enumerate(own.items())
        )
        mounts = "".join(f"{tag} {path}\n" for tag, one in shares.items() for path in one.paths)
        members = {
            f"machine{path}": cpio.file(file.content, file.mode) for path, file in files.items()
        }
        members["machine/etc/nxc/secrets"] = cpio.Member(cpio.DIRECTORY.mode & ~0o077)
        members["links"] = cpio.file(links.encode())
        if mounts:
            members["mounts"] = cpio.file(mounts.encode())
        path = directory / "initrd"
        path.touch(mode=0o600)
        path.write_bytes(self._images[_recipe_image(machine)].initrd.read_bytes())
        with path.open("ab") as file:
            file.write(cpio.pack(members))
        return path


def _has_script(machine: MachinePlan) -> bool:
    return bool(machine.instance.role.start_script)


def _recipe_image(machine: MachinePlan) -> Image:
    if isinstance(machine.image, Image):
        return machine.image
    raise ImageError(
        f"role {machine.instance.role.name}: QEMU has no image {machine.image!r} of its own: "
        "name a recipe"
    )


def _mounts(machine: MachinePlan, volume: Volume) -> bool:
    return not volume.roles or machine.instance.role.name in volume.roles


def _make_directory(path: Path) -> None:
    """Make a directory, as they are in any system's root."""
    path.mkdir()
    path.chmod(0o755)


def _make_disks(directory: Path, instance: Instance) -> dict[str, Path]:
    """Empty disks, as sparse files."""
    disks = {}
    for disk in instance.role.disks:
        path = disks[disk.name] = directory / f"{disk.name}.raw"
        try:
            with path.open("xb") as file:
                os.truncate(file.fileno(), disk.size)
        except OSError as error:
            raise DeploymentError(f"disk {disk.name} of {instance.name}: {error}") from error
    return disks


def _overlay(path: Path, disk: Path) -> Path:
    """A disk that has what another has, and takes what is written."""
    _run("qemu-img", "create", "-q", "-f", "qcow2", "-b", str(disk), "-F", "raw", str(path))
    return path


def _fill(directory: Path, image: Image, volume: Volume) -> None:
    """Give a volume what an image holds at its path."""
    inside = f".{volume.path}"
    depth = volume.path.count("/")
    listed = subprocess.run(
        ["tar", "--list", f"--file={image.rootfs}", "--occurrence", f"{inside}/"],
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        return
    _run(
        *(NAMESPACES if os.geteuid() else ()),
        *("tar", "--extract", f"--file={image.rootfs}", f"--directory={directory}"),
        *("--numeric-owner", "--xattrs", f"--strip-components={depth + 1}", inside),
    )


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DeploymentError(f"{command[0]}: {done.stderr.strip()}")
