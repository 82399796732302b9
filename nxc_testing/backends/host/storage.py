"""Directories of deployments on a disk of this host, found again by their names."""

from __future__ import annotations

import os
import re
from pathlib import Path

from nxc_testing.runs.places import private_directory

DIRECTORY = Path("/var/tmp")
"""On a disk, where /tmp and the run directory are often in memory."""

OWNER = "owner"


def deployment_name(run: str, number: int) -> str:
    """A deployment's name: the run's id, with a number from the run's second one on."""
    return run if number == 1 else f"{run}-{number}"


def run_of(deployment: str) -> str | None:
    """The id of the run that a deployment's name names; None if it is no such name."""
    form = re.fullmatch(r"(nxc-[0-9a-f]+)(?:-[0-9]+)?", deployment)
    return form[1] if form else None


def directory_of(deployment: str, kind: str) -> Path:
    """Where a deployment has what is on disk.

    :param kind: what it is, the same for all of a backend.
    """
    return DIRECTORY / f"{deployment}-{kind}"


def prepare(directory: Path, owner: str) -> None:
    """Make a directory for a deployment, or take the one that is there.

    :param owner: whose it is, for whoever finds it.
    :raise UnsafePath: if another user has a hand in it.
    """
    (private_directory(directory) / OWNER).write_text(owner)


def owner_of(directory: Path) -> str:
    """Whose a deployment's directory is; empty if nobody knows."""
    try:
        return (directory / OWNER).read_text()
    except OSError:
        return ""


def deployment_in(path: Path, kind: str) -> str | None:
    """The deployment whose directory of a kind a path is, or was."""
    if path.parent != DIRECTORY or not path.name.endswith(f"-{kind}"):
        return None
    name = path.name.removesuffix(f"-{kind}")
    return name if run_of(name) else None


def directories(kind: str) -> dict[Path, str]:
    """The directories of a kind that are this user's, and the ids of their runs."""
    found = {}
    for path in sorted(DIRECTORY.glob(f"nxc-*-{kind}")):
        name = deployment_in(path, kind)
        if name and not is_anothers(path):
            found[path] = run_of(name) or ""
    return found


def is_anothers(path: Path) -> bool:
    """Whether a directory is there and another user's."""
    try:
        return path.lstat().st_uid != os.geteuid()
    except FileNotFoundError:
        return False
