"""Disks of machines: sparse files behind loop devices of the host."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from nxc_testing.backends.host import storage
from nxc_testing.composition import Disk
from nxc_testing.errors import DeploymentError
from nxc_testing.runs.places import remove_tree

TIMEOUT = 30.0


def obstacle() -> str | None:
    """Why this process can make no disks; None if it can."""
    if os.geteuid():
        return "loop devices need root: run as root, or take the disks out"
    if not shutil.which("losetup"):
        return "losetup is missing: install util-linux"
    return None


def attach(path: Path, disk: Disk) -> str:
    """Make a block device of the host with an empty sparse file behind it.

    :param path: the file; made now.
    :return: the device, like `/dev/loop0`.
    :raise DeploymentError: if there is no free loop device, or no room for the file.
    """
    try:
        with path.open("xb") as file:
            os.truncate(file.fileno(), disk.size)
    except OSError as error:
        raise DeploymentError(f"disk {disk.name}: {error}") from error
    return losetup("--find", "--show", str(path)).strip()


def lost(kind: str) -> dict[Path, str]:
    """Directories of a kind that are gone, while devices have files in them; their runs' ids."""
    if obstacle():
        # Then nobody could have made any.
        return {}
    found = {}
    for _, file in _listed():
        for path in file.parents:
            name = storage.deployment_in(path, kind)
            if name and not path.exists():
                found[path] = storage.run_of(name) or ""
    return found


def devices(directory: Path) -> list[str]:
    """The loop devices whose files are in a directory, or were."""
    return [device for device, file in _listed() if directory in file.parents]


def release(directory: Path) -> list[str]:
    """Detach every loop device whose file is in a directory, and remove the directory.

    Works from what the host knows, so also after a crash; several processes may do so at once.

    :return: what is gone, in words.
    :raise DeploymentError: if something is left.
    """
    removed = []
    for device in devices(directory):
        try:
            losetup("--detach", device)
            removed.append(f"loop device {device}")
        except DeploymentError:
            # Somebody else may have detached it.
            if device in devices(directory):
                raise
    if directory.exists():
        try:
            remove_tree(directory)
        except OSError as error:
            raise DeploymentError(f"disks: {error}") from error
        removed.append(f"directory {directory}")
    return removed


def _listed() -> list[tuple[str, Path]]:
    """All loop devices of the host, and the files behind them."""
    columns = ("--list", "--noheadings", "--output", "NAME,BACK-FILE")
    pairs = (line.split(maxsplit=1) for line in losetup(*columns).splitlines())
    return [(device, Path(file)) for device, file in pairs]


def losetup(*arguments: str) -> str:
    """Run losetup.

    :return: what it prints.
    :raise DeploymentError: if it fails, with what it says.
    """
    try:
        done = subprocess.run(
            ["losetup", *arguments],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        raise DeploymentError(f"losetup {' '.join(arguments)}: {error.stderr.strip()}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeploymentError(f"losetup {' '.join(arguments)}: {error}") from error
    return done.stdout
