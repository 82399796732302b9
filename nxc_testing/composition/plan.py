"""The plan: a composition with its counts, its images and its secrets, ready to be deployed."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network

from nxc_testing.composition.model import Composition, Instance
from nxc_testing.images import Image

SECRET_BYTES = 32


@dataclass(frozen=True, slots=True)
class MachinePlan:
    """One machine to make.

    :ivar image: a built image, or the name of one that the backend has already.
    :ivar secrets: this machine's secrets by name.
    """

    instance: Instance
    image: Image | str
    secrets: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Segment:
    """A network that there is already, because machines of another kind are in it.

    :ivar bridge: a network device of this host.
    :ivar namespace: the network namespace where it is; empty for the host's own.
    """

    subnet: IPv4Network
    bridge: str
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a backend needs to know.

    :ivar machines: all of the composition's.
    :ivar elsewhere: the names of those that another backend makes.
    :ivar segments: the composition's networks that there are already, by their names.
    """

    composition: Composition
    machines: tuple[MachinePlan, ...]
    elsewhere: frozenset[str] = frozenset()
    segments: Mapping[str, Segment] = field(default_factory=dict)

    @property
    def own(self) -> tuple[MachinePlan, ...]:
        """The machines to make."""
        return tuple(one for one in self.machines if one.instance.name not in self.elsewhere)


def make_plan(composition: Composition, images: Mapping[str, Image | str]) -> Plan:
    """Bring a composition and its images together, and draw the secrets that are not pinned.

    :param composition: with its final counts.
    :param images: for every role's name what it runs.
    :return: the plan; secrets are the same on all its machines (a key that they share is what
        they are for), and differ from one call to the next unless pinned.
    """
    drawn = {
        name: pinned if pinned is not None else secrets.token_hex(SECRET_BYTES)
        for name, pinned in composition.secrets.items()
    }
    return Plan(
        composition,
        tuple(
            MachinePlan(instance, images[instance.role.name], drawn)
            for instance in composition.instances()
        ),
    )
