"""Backends by name, found through the entry-point group `nxc_testing.backends`."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import cast

from nxc_testing.backends.base import Backend
from nxc_testing.errors import BackendUnavailable, ConfigError

GROUP = "nxc_testing.backends"


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
