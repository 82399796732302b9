"""Disks of machines: sparse files behind loop devices of the host."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from nxc_testing.composition import Disk
from nxc_testing.errors import DeploymentError
from nxc_testing.runs.places import private_directory, remove_tree

DIRECTORY = Path("/var/tmp")
"""On a disk, where /tmp and the run directory are often in memory."""

SUFFIX = "-disks"
NAME = re.compile(rf"{re.escape(str(DIRECTORY))}/(nxc-[0-9a-f]+)(?:-[0-9]+)?{SUFFIX}")
OWNER = "owner"
TIMEOUT = 30.0


def directory_of(deployment: str) -> Path:
    """Where a deployment's disks are.

    :param deployment: its name: the run's id, with a number from the run's second one on.
    """
    return DIRECTORY / f"{deployment}{SUFFIX}"


def obstacle(local: bool) -> str | None:
    """Why this process can make no disks; None if it can.

    :param local: whether the engine runs on this host.
    """
    if not local:
        return "the Docker engine is reached by TCP, and its host's loop devices cannot be set up"
    if os.geteuid():
        return "loop devices need root: run as root, or take the disks out"
    if not shutil.which("losetup"):
        return "losetup is missing: install util-linux"
    return None


def prepare(directory: Path, owner: str) -> None:
    """Make a directory for disks.

    :param owner: whose they are, for whoever finds them.
    :raise UnsafePath: if another user has a hand in it.
    """
    (private_directory(directory) / OWNER).write_text(owner)


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


def directories() -> dict[Path, str]:
    """Where disks of any run are, or were; and the run's id."""
    if obstacle(local=True):
        # Then nobody could have made any.
        return {}
    seen = {*DIRECTORY.glob(f"*{SUFFIX}"), *(file.parent for _, file in _listed())}
    named = {path: match[1] for path in sorted(seen) if (match := NAME.fullmatch(str(path)))}
    return {path: run for path, run in named.items() if not _is_anothers(path)}


def _is_anothers(path: Path) -> bool:
    """Whether a directory is there and another user's."""
    try:
        return path.lstat().st_uid != os.geteuid()
    except FileNotFoundError:
        return False


def owner_of(directory: Path) -> str:
    """Whose the disks in a directory are; empty if nobody knows."""
    try:
        return (directory / OWNER).read_text()
    except OSError:
        return ""


def devices(directory: Path) -> list[str]:
    """The loop devices whose files are in a directory, or were."""
    return [device for device, file in _listed() if file.parent == directory]


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
