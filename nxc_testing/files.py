"""Files to and from a machine: any size, bounded memory.

What is large goes through the directory that the machine shares with the host, where there is one,
which is several times as fast (`bench/files.py`); all else through the machine's shell.
"""

from __future__ import annotations

import os
import shlex
import stat
import tarfile
import tempfile
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING

from nxc_testing.backends.base import SHARED_AT
from nxc_testing.errors import CommandFailed, InfraError, MachineUsageError, Unsupported

if TYPE_CHECKING:
    from nxc_testing.machine import Machine
    from nxc_testing.shell import Result

CHUNK = 1 << 18

LARGE = 1 << 20
"""Bytes from which on a way of its own is worth its beginning."""

_FILES_CHANGED = 1
"""GNU tar's exit status where a file changed while it was read, as logs do."""


def push(machine: Machine, source: Path, target: str) -> None:
    """Copy a file or directory of the host into the machine, as `cp -r` would.

    Missing parents are made; into a directory that exists it goes under its own name; a file that
    exists is written to, and keeps its mode. Links are followed, sockets left out. Owner is root,
    modes are kept.

    :raise MachineUsageError: if the source does not exist or cannot be read.
    :raise CommandFailed: if the machine cannot take it.
    """
    if not source.exists():
        raise MachineUsageError(f"{machine.name}: {source} does not exist on the host")
    if not source.is_dir() and not source.is_file():
        raise MachineUsageError(f"{machine.name}: {source} is neither a file nor a directory")
    name = source.name if source.name not in {"", ".."} else source.resolve().name
    if machine.look(f"test -d {shlex.quote(target)}").status == 0:
        target = f"{target}/{name}"
    folder, name = os.path.split(target.rstrip("/"))
    folder = shlex.quote(f"{folder}/" if folder else "./")
    try:
        if source.is_dir():
            unpack = f"mkdir -p {folder} && tar -C {folder} --no-same-owner -xf -"
            _send(machine, unpack, _archive(source, name))
        else:
            place, mode = shlex.quote(f"./{name}"), stat.S_IMODE(source.stat().st_mode)
            new = f"test -e {place} || {{ : >{place} && chmod {mode:o} {place}; }}"
            write = f"mkdir -p {folder} && cd {folder} && {{ {new}; }} && cat >{place}"
            _send(machine, write, _content(source))
    except OSError as error:
        raise MachineUsageError(f"{machine.name}: {source} cannot be read: {error}") from error


def pull(machine: Machine, source: str, target: Path) -> None:
    """Copy a file or directory of the machine to the host; what is there is merged into.

    It belongs to whoever runs this. A source that is a link is followed; links below it stay.

    :param target: the path it gets; parents are made.
    :raise CommandFailed: if it does not exist or cannot be read.
    """
    find = f"readlink -e {shlex.quote(_path(source))}"
    found = machine.look(find)
    if found.status != 0:
        read = machine.look(f"cat {shlex.quote(_path(source))}").stderr
        raise CommandFailed(machine.name, f"cp -r {source}", found.status, "", _text(read))
    folder, name = os.path.split(_text(found.stdout).removesuffix("\n"))
    pack = f"tar -C {shlex.quote(folder)} -cf - {shlex.quote(f'./{name}')}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        if spool := stack.enter_context(_spooled(machine)):
            archive = spool.file
            # In records of 256 KiB: each is a request to the host where the machine is virtual.
            result = machine.transfer(f"{pack} --blocking-factor=512 >{spool.path}")
        else:
            archive = stack.enter_context(tempfile.TemporaryFile())
            result = machine.transfer(pack, sink=archive.write)
        if result.status not in {0, _FILES_CHANGED}:
            raise _failed(machine, pack, result)
        archive.seek(0)
        _unpack(archive, target)


def _path(path: str) -> str:
    """A path that no command takes for an option."""
    return path if path.startswith("/") else f"./{path}"


def _text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


def _failed(machine: Machine, command: str, result: Result) -> CommandFailed:
    error = result.stderr.decode(errors="replace")
    return CommandFailed(machine.name, command, result.status, "", error)


def _send(machine: Machine, command: str, content: Generator[bytes]) -> None:
    """Let a command of the machine read something."""
    with ExitStack() as stack:
        stack.enter_context(closing(content))
        head = b""
        while len(head) < LARGE and (data := next(content, b"")):
            head += data
        spool = stack.enter_context(_spooled(machine)) if len(head) >= LARGE else None
        everything = chain((head,), content)
        if spool:
            spool.fill(everything)
            result = machine.transfer(f"{{ {command}\n}} <{spool.path}")
        else:
            result = machine.transfer(command, stdin=everything)
    if result.status != 0:
        raise _failed(machine, command, result)


@dataclass(frozen=True, slots=True)
class Spool:
    """A file of the host that a machine sees too.

    :ivar path: in the machine.
    """

    file: IO[bytes]
    path: str

    def fill(self, content: Iterable[bytes]) -> None:
        """Write to it from the host.

        :raise InfraError: if the host has no room for it.
        """
        for data in content:
            try:
                self.file.write(data)
            except OSError as error:
                raise InfraError(f"a copy on its way to a machine: {error}") from error


@contextmanager
def _spooled(machine: Machine) -> Iterator[Spool | None]:
    """A file for data on its way, in the shared directory; it is gone afterwards.

    :return: None where no directory is shared, or the machine does not see it now.
    """
    try:
        directory = machine.shared_dir
    except Unsupported:
        yield None
        return
    descriptor, name = tempfile.mkstemp(prefix=".nxc-copy-", dir=directory)
    try:
        with os.fdopen(descriptor, "w+b", buffering=0) as file:
            path = f"{SHARED_AT}/{Path(name).name}"
            seen = machine.look(f"test -e {path}").status == 0
            yield Spool(file, path) if seen else None
    finally:
        Path(name).unlink(missing_ok=True)


def _content(source: Path) -> Generator[bytes]:
    with source.open("rb") as file:
        while data := file.read(CHUNK):
            yield data


def _archive(source: Path, name: str) -> Generator[bytes]:
    """A tar stream of a directory under another name."""
    reader, writer = os.pipe()
    failure: list[Exception] = []

    def write() -> None:
        try:
            with (
                os.fdopen(writer, "wb") as out,
                tarfile.open(
                    fileobj=out, mode="w|", format=tarfile.GNU_FORMAT, dereference=True
                ) as archive,
            ):
                archive.add(source, name)
        except BrokenPipeError:
            pass
        except Exception as error:
            failure.append(error)

    thread = threading.Thread(target=write, name="nxc-tar")
    thread.start()
    try:
        while data := os.read(reader, CHUNK):
            yield data
        # It closes the pipe before it says why.
        thread.join()
        if failure:
            raise failure[0]
    finally:
        os.close(reader)
        thread.join()


def _unpack(archive: IO[bytes], target: Path) -> None:
    """Put the archive's only top member at a path."""
    root = target.parent.resolve()

    def placed(members: Iterable[tarfile.TarInfo]) -> Iterator[tarfile.TarInfo]:
        for member in members:
            member.name = _renamed(member.name, target.name)
            if member.islnk():
                member.linkname = _renamed(member.linkname, target.name)
            if not (root / member.name).parent.resolve().is_relative_to(root):
                # Also by a link that came before it.
                raise InfraError(f"{member.name}: the machine's archive leads out of {root}")
            member.uid, member.gid, member.uname, member.gname = os.getuid(), os.getgid(), "", ""
            member.mode &= 0o777
            yield member

    with tarfile.open(fileobj=archive, mode="r:") as tar:
        # `placed` is the filter; Python's own is missing in the oldest 3.11.
        tar.extraction_filter = lambda member, _: member
        tar.extractall(root, members=placed(tar))


def _renamed(path: str, name: str) -> str:
    """A path in the archive, `./TOP/...`, with another name for TOP."""
    inner = Path(path).parts[1:]
    return str(Path(name, *inner))
