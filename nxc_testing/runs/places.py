"""Directories on a host that is shared with others: private ones, and taking them away again."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import stat
import subprocess
import tempfile
import warnings
from pathlib import Path

import platformdirs

from nxc_testing.errors import UnsafePath

UNMOUNT_TIMEOUT = 10.0


def state_dir() -> Path:
    """Where runs of this user live; made if missing.

    :raise UnsafePath: if another user has a hand in it.
    """
    with warnings.catch_warnings():
        # Its complaint about a missing XDG_RUNTIME_DIR would fail runs under `-W error`.
        warnings.simplefilter("ignore")
        try:
            path = Path(platformdirs.user_runtime_dir("nxc_testing"))
        except PermissionError as error:
            raise UnsafePath(f"{error}; set XDG_RUNTIME_DIR to a directory of yours") from error
    _check_parent(path.parent)
    return private_directory(path)


def state_dirs() -> list[Path]:
    """Wherever runs of this user may live: it depends on how one has logged in."""
    uid = os.geteuid()
    places = [state_dir()]
    for base in (f"/run/user/{uid}", f"{tempfile.gettempdir()}/runtime-{uid}"):
        path = Path(base, "nxc_testing")
        try:
            _check_parent(path.parent)
            mine = path.lstat().st_uid == uid and stat.S_ISDIR(path.lstat().st_mode)
        except (OSError, UnsafePath):
            continue
        if mine and not any(path.samefile(known) for known in places):
            places.append(path)
    return places


def private_directory(path: Path) -> Path:
    """Make a directory of mode 0700, or take one that is there if it is this user's.

    :raise UnsafePath: if it is not: then another user could lead astray what is written there.
    """
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise UnsafePath(f"{path} cannot be made: {error.strerror}") from error
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise UnsafePath(f"{path} is in the way: it is no directory")
    if status.st_uid != os.geteuid():
        raise UnsafePath(f"{path} belongs to {user_name(status.st_uid)}, not to this user")
    if status.st_mode & 0o077:
        path.chmod(0o700)
    return path


def _check_parent(path: Path) -> None:
    """See that nobody else can replace what is in a directory; make it if it is missing.

    :raise UnsafePath: if somebody can.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        private_directory(path)
        return
    others_write = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in {0, os.geteuid()} or others_write:
        raise UnsafePath(
            f"others than {user_name(os.geteuid())} can write to {path}; "
            "set XDG_RUNTIME_DIR to a directory of yours"
        )


def user_name(uid: int) -> str:
    """A user's name; the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def mounts_in(directory: Path) -> list[Path]:
    """What is mounted in a directory or over it, in the order in which it can be unmounted."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        # proc(5): the fifth field, with blanks and the like as octal numbers.
        point = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), line.split()[4])
        if Path(point).is_relative_to(directory):
            found.append(Path(point))
    return found[::-1]


def remove_tree(directory: Path) -> None:
    """Unmount what is mounted in a directory, and then remove it; what was mounted is untouched.

    :raise OSError: if something stays.
    """
    directory = directory.parent.resolve() / directory.name
    for point in mounts_in(directory):
        # Lazily: whoever still uses it keeps it, but not here.
        subprocess.run(
            ["umount", "--lazy", str(point)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=UNMOUNT_TIMEOUT,
            check=False,
        )
    if still := mounts_in(directory):
        raise OSError(f"{still[0]} cannot be unmounted, so {directory} stays")
    try:
        shutil.rmtree(directory)
    except FileNotFoundError:
        # Somebody else removes it too.
        if directory.exists():
            shutil.rmtree(directory, ignore_errors=True)
    if directory.exists():
        raise OSError(f"{directory} cannot be removed in full")
