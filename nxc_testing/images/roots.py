"""Unpacked images, for machines that share a root file system which none of them changes."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from tempfile import mkdtemp

from nxc_testing.errors import ImageError, LockTimeout
from nxc_testing.images import Image
from nxc_testing.images.cache import Cache

ROOTS = "roots"
UNPACKING = ".unpacking-"


def unpacked(
    image: Image, progress: Callable[[str, str], None] = lambda topic, message: None
) -> Path:
    """An image's files as a directory; unpacked at the first call. It takes root.

    :param image: from the cache.
    :param progress: told a topic and a message when something slow begins or ends.
    :return: the directory, which nobody may write to.
    :raise ImageError: if it cannot be unpacked.
    """
    cache, topic = Cache.of(image), f"image {image.name}"

    def say(text: str) -> None:
        progress(topic, text)

    with cache.lock(image.digest, f"the unpacking of {topic}", say):
        cached = cache.find(image.digest)
        if cached is None:
            raise ImageError(f"{topic} is no longer in the cache {cache.root}: build it again")
        roots = cache.root / ROOTS
        root = roots / f"{image.digest}-{cached.meta.build}"
        if root.exists():
            return root
        say(f"unpacking {cached.meta.size / 1e6:.0f} MB")
        started = time.monotonic()
        roots.mkdir(parents=True, exist_ok=True)
        for leftover in roots.glob(f"{UNPACKING}{image.digest}-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        directory = Path(mkdtemp(prefix=f"{UNPACKING}{image.digest}-", dir=roots))
        _extract(image.rootfs, directory)
        directory.rename(root)
        say(f"unpacked ({time.monotonic() - started:.0f} s)")
    return root


def _extract(archive: Path, directory: Path) -> None:
    command = [
        *("tar", "--extract", f"--file={archive}", f"--directory={directory}", "--numeric-owner"),
        *("--same-owner", "--same-permissions", "--xattrs", "--xattrs-include=*"),
    ]
    try:
        subprocess.run(command, capture_output=True, text=True, check=True)
    except subprocess.CalledProcessError as error:
        raise ImageError(f"{archive} cannot be unpacked: {error.stderr.strip()}") from error
    except OSError as error:
        raise ImageError(f"{archive} cannot be unpacked: {error}") from error


def disused(cache: Cache, used: Collection[Path], gone: Collection[str]) -> Iterator[Path]:
    """Unpacked images that nobody will ask for again, and what dead unpackings left.

    :param used: those that machines run on.
    :param gone: the digests of images that are to go.
    """
    for root in sorted((cache.root / ROOTS).glob("*")):
        digest = _digest_of(root)
        cached = cache.find(digest, use=False)
        current = cached is not None and root.name == f"{digest}-{cached.meta.build}"
        if root not in used and (digest in gone or not current):
            yield root


def remove(cache: Cache, root: Path) -> bool:
    """Remove an unpacked image.

    :return: false where somebody is unpacking it.
    """
    try:
        with cache.lock(_digest_of(root), "its removal", lambda _: None, timeout=0):
            if root.exists():
                # Renamed first, so that half an image is never seen.
                gone = root.parent / f"{UNPACKING}{_digest_of(root)}-{time.time_ns()}"
                shutil.rmtree(root.rename(gone), ignore_errors=True)
    except LockTimeout:
        return False
    return True


def _digest_of(root: Path) -> str:
    return root.name.removeprefix(UNPACKING).partition("-")[0]
