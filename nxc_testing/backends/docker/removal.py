"""Finds what runs have in an engine by their labels, and takes it away."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import docker
from docker.errors import APIError

from nxc_testing.backends.base import Trace
from nxc_testing.backends.docker.engine import NOT_FOUND, Engine, engine_host, status
from nxc_testing.backends.host import disks, storage
from nxc_testing.errors import DeploymentError
from nxc_testing.runs.journal import Record
from nxc_testing.session import LABEL_COMPOSITION, LABEL_KEPT, LABEL_OWNER, LABEL_RUN

LABEL_DEPLOYMENT = "nxc_testing.deployment"
LABEL_HOST = "nxc_testing.host"

DISKS = "disks"
"""The kind of directory that files of disks are in."""

SIDE_BY_SIDE = 8
PATIENCE = 60.0
PAUSE = 0.1


@dataclass(frozen=True, slots=True)
class Thing:
    """A container, network or volume of an engine.

    :ivar kind: as Docker's own client calls it.
    :ivar made: seconds since the epoch.
    """

    kind: str
    id: str
    name: str
    labels: Mapping[str, str]
    made: float

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def find(engine: Engine, label: str) -> list[Thing]:
    """All that bears a label, in the order in which it can be removed.

    :param label: `key` or `key=value`.
    """
    filters = {"label": label}
    with engine.api("looking for what is there") as api:
        containers = api.containers(all=True, filters=filters)
        networks = api.networks(filters=filters)
        volumes = api.volumes(filters=filters)["Volumes"] or ()
    return [
        *(
            Thing("container", one["Id"], one["Names"][0].strip("/"), one["Labels"], one["Created"])
            for one in containers
        ),
        *(
            Thing("network", one["Id"], one["Name"], one["Labels"], _seconds(one["Created"]))
            for one in networks
        ),
        *(
            Thing("volume", one["Name"], one["Name"], one["Labels"], _seconds(one["CreatedAt"]))
            for one in volumes
        ),
    ]


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def remove(engine: Engine, label: str) -> list[str]:
    """Remove all that bears a label; several processes may do so at once.

    Containers are killed and not stopped: how the machines would end is of no interest any more.

    :param label: `key=value`.
    :return: what is gone, in words.
    :raise DeploymentError: if something is left; the rest is gone.
    """
    kinds: defaultdict[str, list[Thing]] = defaultdict(list)
    for thing in find(engine, label):
        kinds[thing.kind].append(thing)
    removed: list[str] = []
    failures: list[str] = []
    for things in kinds.values():
        with ThreadPoolExecutor(min(len(things), SIDE_BY_SIDE)) as pool:
            for thing, failure in zip(
                things, pool.map(lambda thing: _remove(engine, thing), things), strict=True
            ):
                if failure:
                    failures.append(failure)
                else:
                    removed.append(str(thing))
    if failures:
        raise DeploymentError("\n".join(failures))
    return removed


def _remove(engine: Engine, thing: Thing) -> str:
    """Remove one thing.

    :return: why it is still there; empty if it is gone.
    """
    calls: dict[str, Callable[[docker.APIClient], object]] = {
        "container": lambda api: api.remove_container(thing.id, force=True, v=True),
        "network": lambda api: api.remove_network(thing.id),
        "volume": lambda api: api.remove_volume(thing.id, force=True),
    }
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            with engine.api(f"removing {thing}") as api:
                calls[thing.kind](api)
        except DeploymentError as error:
            answer = status(error.__cause__) if isinstance(error.__cause__, APIError) else 0
            if answer == NOT_FOUND:
                return ""
            # Somebody else is removing it; it is gone when that one has done.
            if "in progress" not in str(error) or time.monotonic() > give_up:
                return str(error)
            time.sleep(PAUSE)
        else:
            return ""


def traces(engine: Engine) -> list[Trace]:
    """What runs have in an engine, and in disks on this host."""
    deployments: defaultdict[tuple[str, str], list[Thing]] = defaultdict(list)
    for thing in find(engine, LABEL_RUN):
        labels = thing.labels
        deployments[labels[LABEL_RUN], labels.get(LABEL_DEPLOYMENT, "")].append(thing)
    return [
        *(_trace(run, things) for (run, _), things in deployments.items()),
        *(
            Trace(run, "docker", storage.owner_of(path), things=[f"directory {path}"])
            for path, run in _disk_directories().items()
        ),
    ]


def _trace(run: str, things: Sequence[Thing]) -> Trace:
    labels = things[0].labels
    return Trace(
        run=run,
        backend="docker",
        owner=labels.get(LABEL_OWNER, ""),
        kept=any(LABEL_KEPT in thing.labels for thing in things),
        composition=labels.get(LABEL_COMPOSITION, ""),
        machines=[thing.labels[LABEL_HOST] for thing in things if LABEL_HOST in thing.labels],
        things=[str(thing) for thing in things],
        made=min(thing.made for thing in things),
    )


def reap(run: str, records: Sequence[Record]) -> list[str]:
    """Release everything of a run: in the engines that it has noted, and on this host.

    :return: what is gone now, in words.
    :raise NxcError: if something is left.
    """
    removed: list[str] = []
    noted = {record.identifier.partition(" ")[0] for record in records}
    for host in noted or {engine_host()}:
        with closing(Engine(host)) as engine:
            removed += remove(engine, f"{LABEL_RUN}={run}")
    for directory, whose in _disk_directories().items():
        if whose == run:
            removed += disks.release(directory)
    return removed


def _disk_directories() -> dict[Path, str]:
    """Where disks of any run are, or were; and the run's id."""
    return storage.directories(DISKS) | disks.lost(DISKS)
