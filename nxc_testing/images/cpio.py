"""Archives that the Linux kernel unpacks into its initial RAM disk.

The format is cpio's "new ASCII" one (kernel documentation, "initramfs buffer format"). Archives can
stand one behind the other in one file; a later one adds to those before it.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

MAGIC = "070701"
TRAILER = "TRAILER!!!"
ALIGNMENT = 4


@dataclass(frozen=True, slots=True)
class Member:
    """A file, directory or symbolic link; root owns it.

    :ivar mode: type and permission bits.
    :ivar content: a file's content, or what a link points to.
    """

    mode: int
    content: bytes = b""


DIRECTORY = Member(stat.S_IFDIR | 0o755)


def file(content: bytes, mode: int = 0o644) -> Member:
    """A regular file."""
    return Member(stat.S_IFREG | mode, content)


def link(target: str) -> Member:
    """A symbolic link."""
    return Member(stat.S_IFLNK | 0o777, target.encode())


def pack(members: Mapping[str, Member]) -> bytes:
    """An archive, with the directories that its members need.

    :param members: by their paths in the RAM disk, without the first slash.
    """
    parents = {
        str(parent)
        for name in members
        for parent in PurePosixPath(name).parents
        if str(parent) not in (".", "/")
    }
    whole = {**dict.fromkeys(parents, DIRECTORY), **members}
    # Sorted, a directory comes before what is in it.
    entries = [_entry(number, name, whole[name]) for number, name in enumerate(sorted(whole), 1)]
    return b"".join((*entries, _entry(0, TRAILER, Member(0))))


def _entry(number: int, name: str, member: Member) -> bytes:
    encoded = name.encode() + b"\0"
    fields = (number, member.mode, 0, 0, 1, 0, len(member.content), 0, 0, 0, 0, len(encoded), 0)
    header = (MAGIC + "".join(f"{field:08X}" for field in fields)).encode()
    return _padded(header + encoded) + _padded(member.content)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % ALIGNMENT)
