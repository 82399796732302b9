"""The cache of built images: one directory for each digest, whole or not there at all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import mkdtemp

import platformdirs

from nxc_testing.errors import LockTimeout
from nxc_testing.images import Image
from nxc_testing.runs.locks import host_lock

ENVIRONMENT = "NXC_CACHE_DIR"
ROOTFS = "rootfs.tar"
META = "meta.json"
BUILDING = ".building-"

NAMESPACES = ("unshare", "--user", "--map-root-user", "--map-auto")
"""How a user who is not root gets a root of his own (util-linux 2.38, subordinate ids)."""


@dataclass(frozen=True, slots=True)
class Meta:
    """What is known of a cached image.

    :ivar parent: the digest of what it was built upon; empty if it started from nothing.
    :ivar build: names this build of the digest; another build of it has another.
    :ivar built_at: seconds since the epoch.
    :ivar packages: how many are installed.
    :ivar size: bytes.
    :ivar seconds: how long the build took.
    :ivar units: what virtual machines boot of it, `needed` or `all`.
    """

    name: str
    digest: str
    parent: str
    suite: str
    build: str
    built_at: float
    packages: int
    size: int
    seconds: float
    units: str = "needed"


@dataclass(frozen=True, slots=True)
class Cached:
    """An image in the cache.

    :ivar used_at: when it was last asked for, in seconds since the epoch.
    """

    directory: Path
    meta: Meta
    used_at: float

    @property
    def image(self) -> Image:
        """The image itself."""
        return Image(self.meta.name, self.meta.digest, self.directory / ROOTFS)


class Cache:
    """All images of a user.

    :param root: where they are; $NXC_CACHE_DIR or the user's cache directory by default.
    """

    def __init__(self, root: Path | None = None):
        given = os.environ.get(ENVIRONMENT)
        default = Path(given) if given else Path(platformdirs.user_cache_dir("nxc_testing"))
        self.root = (root or default).absolute()
        self.images = self.root / "images"
        self.logs = self.root / "logs"

    @classmethod
    def of(cls, image: Image) -> Cache:
        """The cache that an image is in."""
        return cls(image.rootfs.parents[2])

    def find(self, digest: str, *, use: bool = True) -> Cached | None:
        """An image, if it is there and whole.

        :param use: whether finding it counts as its use.
        """
        cached = self._read(self.images / digest)
        if cached and use:
            os.utime(cached.directory / META)
        return cached

    def all(self) -> list[Cached]:
        """Every image that is whole, the most recently used first."""
        found = [self._read(path) for path in self.images.glob("[0-9a-f]*")]
        return sorted((one for one in found if one), key=lambda one: -one.used_at)

    def _read(self, directory: Path) -> Cached | None:
        meta = directory / META
        # The size tells an archive that lost its end when the power was cut.
        try:
            cached = Cached(directory, Meta(**json.loads(meta.read_text())), meta.stat().st_mtime)
            whole = cached.image.rootfs.stat().st_size == cached.meta.size
        except (OSError, ValueError, TypeError):
            return None
        return cached if whole else None

    @contextmanager
    def lock(
        self, digest: str, what: str, say: Callable[[str], None], *, timeout: float = -1
    ) -> Iterator[None]:
        """Keep others from building or removing an image.

        :param what: what is done meanwhile, for those who wait.
        :param say: told for whom one waits.
        :param timeout: seconds; -1 waits for ever.
        :raise LockTimeout: if it is not free in time.
        """
        directory = self.root / "locks"
        directory.mkdir(parents=True, exist_ok=True)
        with host_lock(f"image-{digest}", what, timeout, say, directory=directory):
            yield

    @contextmanager
    def building(self, digest: str) -> Iterator[Path]:
        """A directory to build an image in, gone afterwards; under the image's lock only."""
        self.images.mkdir(parents=True, exist_ok=True)
        for leftover in self.images.glob(f"{BUILDING}{digest}-*"):
            remove_tree(leftover)
        directory = Path(mkdtemp(prefix=f"{BUILDING}{digest}-", dir=self.images))
        try:
            yield directory
        finally:
            remove_tree(directory)

    def keep(self, directory: Path, meta: Meta) -> Cached:
        """Let a whole image take its place; under its lock only.

        :param directory: holds the rootfs, in a directory that `building` gave.
        """
        (directory / META).write_text(json.dumps(asdict(meta), indent=1) + "\n")
        final = self.images / meta.digest
        if final.exists():
            # A directory cannot take a full one's place: first make room.
            final.rename(directory.parent / "replaced")
        directory.rename(final)
        cached = self._read(final)
        assert cached
        return cached

    def remove(self, digest: str) -> bool:
        """Remove an image.

        :return: false where somebody is building it.
        """
        try:
            with self.lock(digest, "its removal", lambda _: None, timeout=0):
                directory = self.images / digest
                if directory.exists():
                    # Renamed first, so that half an image is never seen.
                    gone = directory.rename(self.images / f"{BUILDING}{digest}-{time.time_ns()}")
                    remove_tree(gone)
        except LockTimeout:
            return False
        return True

    def leftovers(self) -> list[Path]:
        """What is no whole image and nobody is working in: dead builds left it."""
        found = []
        for path in sorted(self.images.glob("*")):
            digest = path.name.removeprefix(BUILDING).partition("-")[0]
            if self._read(path):
                continue
            try:
                with self.lock(digest, "a look for leftovers", lambda _: None, timeout=0):
                    found.append(path)
            except LockTimeout:
                continue
        return found


def remove_tree(path: Path) -> None:
    """Remove a directory, also where its files belong to subordinate users of ours."""
    shutil.rmtree(path, ignore_errors=True)
    if path.exists() and os.geteuid() != 0:
        command = (*NAMESPACES, "rm", "-rf", "--one-file-system", str(path))
        subprocess.run(command, capture_output=True, check=False)
