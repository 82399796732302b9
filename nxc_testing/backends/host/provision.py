"""Files that a machine finds before its first process starts."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from nxc_testing.composition.identity import MachineFile

RESOLV_CONF = "nameserver 127.0.0.1"
"""A machine's name server would ask the host's for every name that /etc/hosts has not got, and a
machine has no way out: each such look-up took more than 20 s. An address where nobody listens
refuses at once, as in a NixOS test; a machine may run a server of its own there."""


def hosts_file(entries: Iterable[tuple[str, tuple[str, ...]]]) -> bytes:
    """An /etc/hosts.

    :param entries: an address, and the names it has.
    """
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    lines += [" ".join((address, *names)) for address, names in entries]
    return "".join(f"{line}\n" for line in lines).encode()


def archive(files: Mapping[str, MachineFile]) -> bytes:
    """Files as a tar archive for a machine's root directory, root's, with their directories.

    A directory that holds nothing but private files is private. The first directory of a path
    is taken to be there.

    :param files: by absolute path.
    """
    directories: dict[PurePosixPath, bool] = {}
    for name, file in files.items():
        # The innermost and outermost ancestors, `/` and `/etc`, are the image's.
        for directory in PurePosixPath(name).parents[:-2]:
            private = not file.mode & 0o077
            directories[directory] = directories.get(directory, True) and private
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for directory in sorted(directories):
            entry = _entry(str(directory), 0o700 if directories[directory] else 0o755)
            entry.type = tarfile.DIRTYPE
            tar.addfile(entry)
        for name, file in files.items():
            entry = _entry(name, file.mode)
            entry.size = len(file.content)
            tar.addfile(entry, io.BytesIO(file.content))
    return buffer.getvalue()


def _entry(path: str, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path.lstrip("/"))
    entry.mode, entry.mtime = mode, int(time.time())
    return entry
