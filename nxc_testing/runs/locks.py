"""Locks between processes of a host, also of several users."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from nxc_testing.errors import LockTimeout, UnsafePath
from nxc_testing.runs.places import user_name

SHARED = Path("/tmp/nxc_testing-locks")
NOTE_SIZE = 200


def locks_dir() -> Path:
    """Where the locks are that every user of the host shares: writable by all, as /tmp is.

    :raise UnsafePath: if something else is in its place.
    """
    try:
        SHARED.mkdir()
        # What mkdir was asked for is cut by the umask.
        SHARED.chmod(0o1777)
    except FileExistsError:
        pass
    status = SHARED.lstat()
    if not stat.S_ISDIR(status.st_mode):
        raise UnsafePath(f"{SHARED} is in the way: it is no directory; remove it")
    if not status.st_mode & stat.S_ISVTX and status.st_mode & 0o022:
        raise UnsafePath(f"any user can remove others' locks in {SHARED}: `chmod 1777 {SHARED}`")
    return SHARED


@contextmanager
def host_lock(
    name: str,
    holder: str,
    timeout: float,
    say: Callable[[str], None],
    *,
    directory: Path | None = None,
) -> Iterator[None]:
    """Hold a lock between processes; it falls with its holder.

    :param name: the lock's name; also its file's.
    :param holder: who asks, for those who wait after.
    :param timeout: seconds to wait; -1 waits for ever.
    :param say: told once, where one has to wait, for whom.
    :param directory: where the lock's file is; by default where every user of the host sees it.
    :raise LockTimeout: if it is not free in time.
    :raise UnsafePath: if another user keeps this one from locking.
    """
    path = (directory or locks_dir()) / f"{name}.lock"
    note = path.with_suffix(".holder")
    # Whoever releases it may be another thread than took it.
    lock = FileLock(path, mode=0o666, thread_local=False)
    try:
        _acquire(lock, path, 0)
    except Timeout:
        who = _read_note(note) or "another run"
        say(f"waiting for {who}")
        try:
            _acquire(lock, path, timeout)
        except Timeout:
            raise LockTimeout(f"lock {name} was not free in {timeout:.0f} s: {who}") from None
    try:
        _write_note(note, f"{holder} (pid {os.getpid()}, since {time.strftime('%H:%M:%S')})\n")
        yield
    finally:
        with suppress(OSError):
            note.unlink(missing_ok=True)
        lock.release()


def _acquire(lock: FileLock, path: Path, timeout: float) -> None:
    # It opens the file without following a link, and truncates nothing.
    try:
        lock.acquire(timeout=timeout)
    except OSError as error:
        if isinstance(error, Timeout):
            raise
        with suppress(FileNotFoundError):
            owner = user_name(path.lstat().st_uid)
            raise UnsafePath(
                f"{path} cannot be locked ({error.strerror}): {owner} made it, not this program; "
                "remove it, or have that user remove it"
            ) from error
        raise UnsafePath(f"{path} cannot be made: {error.strerror}") from error


def _write_note(path: Path, text: str) -> None:
    """Write a file anew; never into one that is there, which may lead elsewhere."""
    with suppress(OSError):
        path.unlink(missing_ok=True)
        note = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
        os.write(note, text.encode())
        os.close(note)


def _read_note(path: Path) -> str:
    """A note's text; another user may have written it."""
    try:
        note = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        text = os.read(note, NOTE_SIZE).decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(note)
    return "".join(filter(str.isprintable, text)).strip()
