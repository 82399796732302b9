"""Backends by name, found through the entry-point group `nxc_testing.backends`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, cast

from nxc_testing.backends.base import Backend, MayBeSlow
from nxc_testing.errors import BackendUnavailable, ConfigError

if TYPE_CHECKING:
    from nxc_testing.backends.capabilities import Capability

GROUP = "nxc_testing.backends"

AUTO = "auto"
"""Stands for the first candidate that this host can use, and that has what a composition needs."""

CANDIDATES = {
    "docker": "a Docker engine answers",
    "qemu": "QEMU is there",
    "nspawn": "this is root, and systemd-nspawn is there",
}
"""The backends that `auto` tries, in this order, and what it means that one can be used.

One that is slow on this host comes after all others.
"""


@dataclass(frozen=True, slots=True)
class Choice:
    """A backend that was chosen.

    :ivar reason: why, in words; empty where the user named it.
    """

    name: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({AUTO}: {self.reason})" if self.reason else self.name


def choose(name: str, needs: Sequence[Capability] = ()) -> Choice:
    """A backend for machines.

    :param name: an entry-point name, which is taken whether or not this host can use it; or
        `auto`.
    :param needs: what machines have to be able to do. Where no candidate that this host can use
        has it all, `auto` is the first that can be used nevertheless.
    :raise ConfigError: if there is none of that name, or none that this host can use.
    """
    if name != AUTO:
        create(name)
        return Choice(name)
    obstacles: list[str] = []
    slow = other = ""
    for candidate, reason in CANDIDATES.items():
        backend = create(candidate)
        if why := backend.unavailable():
            obstacles.append(f"no {candidate}, as {why}")
        elif missing := [o.name for o in needs if not o.declared_by(backend.node_type())]:
            other = other or candidate
            obstacles.append(f"no {candidate}, as it has no {', '.join(missing)}")
        elif isinstance(backend, MayBeSlow) and (why := backend.slow()):
            slow = slow or candidate
            obstacles.append(f"{candidate} only where nothing else is, as {why}")
        else:
            return Choice(candidate, "; ".join((reason, *obstacles)))
    if slow:
        return Choice(slow, "; ".join((CANDIDATES[slow], *obstacles)))
    if other:
        return Choice(other, "; ".join(obstacles))
    raise ConfigError(
        "this host can use no backend",
        key=f"backend {AUTO}",
        hint="do one of these:\n  " + "\n  ".join(obstacles),
    )


def names() -> list[str]:
    """The names of the installed backends, sorted."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def load(name: str) -> Backend:
    """A backend by its name.

    :param name: its entry-point name, for example "docker".
    :return: the backend, which this host can use.
    :raise ConfigError: if there is none of that name.
    :raise BackendUnavailable: if this host cannot use it.
    """
    backend = create(name)
    if why := backend.unavailable():
        raise BackendUnavailable(f"backend {name}: {why}")
    return backend


def create(name: str) -> Backend:
    """A backend by its name, whether or not this host can use it.

    :raise ConfigError: if there is none of that name.
    """
    points = list(entry_points(group=GROUP, name=name))
    if not points:
        raise ConfigError(
            f"there is no backend {name!r}", key="backend", hint=f"installed: {', '.join(names())}"
        )
    return cast(Backend, points[0].load()())
