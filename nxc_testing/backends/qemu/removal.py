"""Finds what runs have on this host by the mark that it bears, and takes it away."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil

from nxc_testing.backends.base import Trace
from nxc_testing.backends.host import storage
from nxc_testing.errors import DeploymentError
from nxc_testing.runs.journal import Record
from nxc_testing.runs.places import remove_tree

MARK = "NXC_QEMU_DEPLOYMENT"
"""In the environment of every process of a deployment: its name."""

OWNER = "NXC_QEMU_OWNER"
"""Beside it: the run's owner."""

STATE = "qemu"
"""The kind of directory that a deployment has."""

IMAGE = "image"
"""In a machine's directory: a link to what it boots, in the cache."""

KILL_ROUNDS = 500
PAUSE = 0.01


def traces() -> Sequence[Trace]:
    """The processes and directories of this user's runs, living and dead."""
    found = [
        Trace(
            run=storage.run_of(environment[MARK]) or "",
            backend="qemu",
            owner=environment.get(OWNER, ""),
            things=(f"process {process.pid} ({process.name()})",),
            made=process.create_time(),
        )
        for process, environment in _marked()
    ]
    for path, run in storage.directories(STATE).items():
        owner = storage.owner_of(path)
        found.append(Trace(run, "qemu", owner, things=[f"directory {path}"]))
    return found


def images_in_use() -> set[Path]:
    """The directories of images in the cache that machines of this host boot."""
    links = storage.DIRECTORY.glob(f"nxc-*-{STATE}/*/{IMAGE}")
    return {link.readlink().parent for link in links}


def reap(run: str, records: Sequence[Record]) -> list[str]:
    """Release everything of a run.

    :return: what is gone now, in words.
    :raise NxcError: if something is left.
    """
    removed = kill(lambda deployment: storage.run_of(deployment) == run)
    for directory, whose in storage.directories(STATE).items():
        if whose == run:
            remove_directory(directory)
            removed.append(f"directory {directory}")
    return removed


def kill(ours: Callable[[str], bool]) -> list[str]:
    """Kill the processes of deployments until none is found any more.

    :param ours: whether a deployment is to be killed, by its name.
    :return: what is gone, in words.
    :raise DeploymentError: if one cannot be killed.
    """
    killed: dict[int, str] = {}
    for _ in range(KILL_ROUNDS):
        left = [process for process, environment in _marked() if ours(environment[MARK])]
        if not left:
            return list(killed.values())
        for process in left:
            with contextlib.suppress(psutil.Error):
                killed[process.pid] = f"process {process.pid} ({process.name()})"
                process.kill()
        time.sleep(PAUSE)
    raise DeploymentError(f"these processes cannot be killed: {[one.pid for one in left]}")


def remove_directory(directory: Path) -> None:
    """Remove a deployment's directory.

    :raise DeploymentError: if something of it stays.
    """
    try:
        remove_tree(directory)
    except OSError as error:
        raise DeploymentError(str(error)) from error


def _marked() -> Iterator[tuple[psutil.Process, dict[str, str]]]:
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            environment = process.environ()
            if storage.run_of(environment.get(MARK, "")) and _runs(process):
                yield process, environment


def _runs(process: psutil.Process) -> bool:
    return process.status() != psutil.STATUS_ZOMBIE
