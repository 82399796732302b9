"""From a plan to a deployment: networks, volumes, disks and containers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from docker.errors import ImageNotFound

from nxc_testing.backends import start_scripts
from nxc_testing.backends.docker import containers, networks
from nxc_testing.backends.docker.containers import Blueprint
from nxc_testing.backends.docker.deployment import DockerDeployment
from nxc_testing.backends.docker.engine import Engine
from nxc_testing.backends.docker.init import HOSTS_FILE
from nxc_testing.backends.docker.links import LinkSwitch, make_helper
from nxc_testing.backends.docker.networks import BridgeNetwork
from nxc_testing.backends.docker.node import DockerNode
from nxc_testing.backends.docker.privileges import privileges
from nxc_testing.backends.docker.removal import DISKS, LABEL_HOST
from nxc_testing.backends.host import disks, storage, subnets
from nxc_testing.backends.host.provision import archive, hosts_file
from nxc_testing.composition import Instance, MachinePlan, Network, Plan
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
from nxc_testing.images.docker import into_docker
from nxc_testing.session import Session


def deploy(plan: Plan, session: Session) -> DockerDeployment:
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
        self._engine = Engine()
        self.deployment = DockerDeployment(self._engine, session, plan)
        self._images: dict[Image | str, Mapping[str, Any]] = {}
        self._networks: dict[str, BridgeNetwork] = {}
        self.deployment.networks = self._networks
        self._volumes: dict[str, str] = {}
        self._addresses: Addresses = {}

    def make(self) -> None:
        """See `deploy`."""
        self._check()
        for machine in self._plan.own:
            if machine.image not in self._images:
                self._images[machine.image] = self._image(machine)
        self.deployment.announce()
        self._make_networks()
        self._addresses = assign_addresses(
            self._composition, {name: made.subnet for name, made in self._networks.items()}
        )
        self._make_volumes()
        self.deployment.watch()
        links = LinkSwitch(
            self._engine,
            [network.bridge for network in self._networks.values()],
            self._make_link_helper,
        )
        for machine in self._plan.own:
            self._make_machine(machine, links)

    def _check(self) -> None:
        """Meet what the user has to change before anything is made."""
        start_scripts.refuse(self._plan, "docker")
        roles = {one.instance.role.name: one.instance.role for one in self._plan.own}
        for role in roles.values():
            privileges(self._composition, role, self._engine.info)
            if role.disks and (why := self._disk_obstacle()):
                raise DeploymentError(f"roles.{role.name}.disks: {why}")

    def _disk_obstacle(self) -> str | None:
        if not self._engine.info.local:
            return (
                "the Docker engine is reached by TCP, and its host's loop devices cannot be set up"
            )
        return disks.obstacle()

    def _image(self, machine: MachinePlan) -> Mapping[str, Any]:
        """A machine's image as the engine describes it."""
        image, role = machine.image, machine.instance.role.name
        with self._engine.client(f"role {role}: its image") as client:
            if isinstance(image, Image):
                image = into_docker(client, image, self._session.progress)
            try:
                return client.images.get(image).attrs
            except ImageNotFound as error:
                raise ImageError(
                    f"role {role}: the Docker engine has no image {image!r}: "
                    f"`docker pull {image}`, or name a recipe"
                ) from error

    def _make_networks(self) -> None:
        subnets.lock_fixed(self._composition, self._session, self.deployment.locks)
        for number, network in enumerate(self._composition.networks):
            self._networks[network.name] = self._make_network(number, network)

    def _make_network(self, number: int, network: Network) -> BridgeNetwork:
        # The engine names a machine's network devices in the order of their networks' names.
        engine_name = f"{self.deployment.name}-net{number:02}-{network.name}"

        def used_in(subnet: IPv4Network) -> Sequence[IPv4Address]:
            hosts = assign_addresses(self._composition, {network.name: subnet}).values()
            return [IPv4Address(at[network.name]) for at in hosts if network.name in at]

        labels = self.deployment.labels
        if network.subnet is None:
            members = sum(
                network.name in one.role.networks for one in self._composition.instances()
            )
            return networks.create_free(
                self._engine,
                network.name,
                engine_name,
                machines=members,
                used_in=used_in,
                labels=labels,
            )
        subnets.check_free(network.name, network.subnet, networks.occupants(self._engine))
        made = networks.create(
            self._engine,
            network.name,
            engine_name,
            subnet=network.subnet,
            used=used_in(network.subnet),
            labels=labels,
        )
        if made is None:
            subnets.check_free(network.name, network.subnet, networks.occupants(self._engine))
            raise DeploymentError(f"network {network.name}: {network.subnet} was taken just now")
        return made

    def _make_volumes(self) -> None:
        for volume in self._composition.volumes:
            name = f"{self.deployment.name}-{volume.name}"
            with self._engine.api(f"volume {volume.name}") as api:
                api.create_volume(name, labels=self.deployment.labels)
            self._volumes[volume.name] = name

    def _make_disks(self, instance: Instance) -> dict[str, str]:
        """The host's devices of a machine's disks, by the machine's names."""
        directory = storage.directory_of(self.deployment.name, DISKS)
        if instance.role.disks:
            storage.prepare(directory, str(self._session.owner))
        return {
            disk.name: disks.attach(directory / f"{instance.name}-{disk.name}", disk)
            for disk in instance.role.disks
        }

    def _make_machine(self, machine: MachinePlan, links: LinkSwitch) -> None:
        instance, image = machine.instance, self._images[machine.image]
        name, own = instance.name, self._addresses[instance.name]
        blueprint = Blueprint(
            name=f"{self.deployment.name}-{name}",
            instance=instance,
            image=image["Id"],
            image_config=image["Config"] or {},
            networks=[(self._networks[network], address) for network, address in own.items()],
            volumes={
                volume.path: self._volumes[volume.name]
                for volume in self._composition.volumes
                if not volume.roles or instance.role.name in volume.roles
            },
            disks=self._make_disks(instance),
            labels={**self.deployment.labels, LABEL_HOST: name},
        )
        hosts = hosts_file(hosts_entries(self._plan, self._addresses))
        files = machine_files(self._plan, machine, self._addresses)
        files[HOSTS_FILE] = MachineFile(hosts, PUBLIC)
        with self._engine.api(f"container of {name}") as api:
            container = containers.create(api, blueprint, self._composition, self._engine.info)
            api.put_archive(container, "/", archive(files))
        self.deployment.add(
            DockerNode(
                self._engine, container, blueprint.name, name=name, addresses=own, links=links
            )
        )

    def _make_link_helper(self) -> str:
        image = next(iter(self._images.values()))["Id"]
        name = f"{self.deployment.name}-links"
        return make_helper(self._engine, image, name, self.deployment.labels)
