"""Finds what runs have on this host by its names, and takes it away."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import psutil

from nxc_testing.backends.base import Trace
from nxc_testing.backends.host import disks, storage, switch
from nxc_testing.backends.nspawn import cgroups
from nxc_testing.backends.nspawn.command import MARK
from nxc_testing.errors import DeploymentError

KIND = "nspawn"
"""The kind of directory that a deployment has its files in."""

FACTS = "facts.json"
MACHINES, VOLUMES, DISKS = "machines", "volumes", "disks"
"""Folders in a deployment's directory."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a deployment's directory tells whoever finds it.

    :ivar made: seconds since the epoch.
    """

    composition: str
    machines: list[str]
    kept: bool
    made: float

    def write(self, directory: Path) -> None:
        """Leave them in a directory."""
        (directory / FACTS).write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, directory: Path) -> Facts:
        """Those of a directory; empty ones if it has none."""
        try:
            return cls(**json.loads((directory / FACTS).read_text()))
        except (OSError, ValueError, TypeError):
            return cls("", [], False, 0.0)


def traces() -> list[Trace]:
    """What runs have on this host."""
    found = []
    for directory, run in storage.directories(KIND).items():
        facts = Facts.read(directory)
        found.append(
            Trace(
                run=run,
                backend="nspawn",
                owner=storage.owner_of(directory),
                kept=facts.kept,
                composition=facts.composition,
                machines=facts.machines,
                things=[words for words, _ in _things(run)],
                made=facts.made,
            )
        )
    known = {trace.run for trace in found}
    for run in sorted({storage.run_of(name) or "" for name in switch.names()} - known - {""}):
        found.append(Trace(run, "nspawn", "", things=[words for words, _ in _things(run)]))
    return found


def roots_in_use() -> set[Path]:
    """The directories of unpacked images that machines of this host run on."""
    links = storage.DIRECTORY.glob(f"nxc-*-{KIND}/{MACHINES}/*/lower")
    return {link.readlink() for link in links}


def reap(run: str) -> list[str]:
    """Release everything of a run; may be called again, by several processes at once.

    :return: what is gone now, in words.
    :raise DeploymentError: if something is left; the rest is gone.
    """
    removed, failures = [], []
    for words, release in _things(run):
        try:
            release()
            removed.append(words)
        except (DeploymentError, OSError) as error:
            failures.append(f"{words}: {error}")
    if failures:
        raise DeploymentError("\n".join(failures))
    return removed


def _things(run: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """All that a run has, in words, and what releases it, in the order in which it can be."""
    for process in _holders(run):
        yield f"process {process}", partial(_kill, process)
    for name in cgroups.named(f"{run}-"):
        yield f"machine {name}", partial(_end, name)
    for device in switch.devices(switch.uplinks_of_run(run)):
        yield f"network device {device}", partial(switch.delete_device, device)
    for name in switch.names():
        if storage.run_of(name) == run:
            yield f"network namespace {name}", partial(switch.delete_namespace, name)
    for directory, whose in (storage.directories(KIND) | disks.lost(KIND)).items():
        if whose == run:
            yield f"directory {directory}", partial(release_files, directory)


def release_files(directory: Path) -> None:
    """Remove a deployment's directory, and the devices that have files in it.

    :raise DeploymentError: if something is left.
    """
    # NixOS makes this one immutable at each start, and its start script sees to it at the end.
    for empty in directory.glob(f"{MACHINES}/*/root/var/empty"):
        subprocess.run(["chattr", "-i", str(empty)], capture_output=True, check=False)
    disks.release(directory)


def _holders(run: str) -> Iterator[int]:
    """The processes that hold a run's machines, or are about to."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            deployment = process.environ().get(MARK, "")
            if storage.run_of(deployment) == run and process.status() != psutil.STATUS_ZOMBIE:
                yield process.pid


def _kill(process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)


def _end(name: str) -> None:
    group = cgroups.Group(name)
    group.kill()
    group.remove()
