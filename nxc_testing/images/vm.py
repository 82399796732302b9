"""Turns images into what a virtual machine boots: a disk, a kernel and an initial RAM disk.

They stand beside the image in the cache, in a directory that is whole or not there.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nxc_testing.errors import ImageError, tail
from nxc_testing.images import Image, kernels
from nxc_testing.images.builder import Progress, ensure
from nxc_testing.images.cache import NAMESPACES, Cache, Cached

VERSION = 2
"""Raised whenever the same image becomes something else here."""

KERNEL = "kernel"
"""The built-in recipe of images without a kernel of their own."""

DISK, KERNEL_FILE, INITRD = "disk.raw", "vmlinuz", "initrd"

DISK_SIZE = 16 << 30
"""Bytes of the root disk; the file is sparse."""

TOOLS = {"mke2fs": "e2fsprogs", "tar": "tar"}

# $1 an archive of the root file system, $2 one with a kernel's modules or nothing, $3 the modules'
# directory in it, $4 the disk. /dev is the kernel's own business, and not everyone may make nodes.
MAKE_DISK = """
set -eu
mkdir root
unpack() {
    tar --extract --directory=root --numeric-owner --xattrs --xattrs-include='*' "$@"
}
unpack --file="$1" --exclude='./dev/*'
if [ -n "$2" ]; then
    unpack --file="$2" "./$3"
fi
exec mke2fs -q -t ext4 -O ^metadata_csum -J size=16 -E nodiscard,lazy_itable_init=1 \
    -m 0 -L root -d root "$4"
"""


@dataclass(frozen=True, slots=True)
class VmImage:
    """What a virtual machine boots.

    :ivar disk: a raw image of a disk that is one ext4 file system; never written to.
    """

    disk: Path
    kernel: Path
    initrd: Path


def into_vm(
    image: Image,
    progress: Progress = lambda topic, message: None,
    *,
    mirror: str | None = None,
) -> VmImage:
    """Make an image bootable; nothing is done if it has been.

    :param image: from the cache.
    :param progress: told a topic and a message when something slow begins or ends.
    :param mirror: where the kernel comes from, if it is not there.
    :return: what a machine boots; it is there as long as the image is.
    :raise ImageError: if it cannot be made.
    """
    cache = Cache.of(image)
    topic = f"image {image.name}"

    def say(text: str) -> None:
        progress(topic, text)

    kernel = ensure(KERNEL, mirror=mirror, progress=progress, cache=cache)
    with cache.lock(image.digest, f"making a disk of {topic}", say):
        cached, of_kernel = cache.find(image.digest), cache.find(kernel.digest)
        if cached is None or of_kernel is None:
            raise ImageError(f"{topic} is no longer in the cache {cache.root}: build it again")
        directory = cached.directory / f"vm-{_key(cached, of_kernel)}"
        if not directory.exists():
            say("making a disk for virtual machines")
            started = time.monotonic()
            with cache.building(image.digest) as work:
                (work / "vm").mkdir()
                _make(cached, of_kernel, work)
                (work / "vm").rename(directory)
            say(f"made a disk for virtual machines ({time.monotonic() - started:.0f} s)")
    return VmImage(directory / DISK, directory / KERNEL_FILE, directory / INITRD)


def _key(cached: Cached, kernel: Cached) -> str:
    parts = [str(VERSION), cached.meta.build, kernel.meta.build]
    parts += [file.read_text() for file in sorted(kernels.GUEST.iterdir())]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _make(cached: Cached, of_kernel: Cached, work: Path) -> None:
    rootfs, spare = cached.image.rootfs, of_kernel.image.rootfs
    own = kernels.find(rootfs)
    version = own or kernels.find(spare)
    if version is None:
        raise ImageError(f"the recipe {KERNEL} has no kernel")
    kernel = kernels.read(rootfs if own else spare, version)
    initrd = kernels.initrd(kernel, kernels.busybox_of(spare), all_units=cached.meta.units == "all")
    out = work / "vm"
    _write(out / KERNEL_FILE, lambda path: path.write_bytes(kernel.image))
    _write(out / INITRD, lambda path: path.write_bytes(initrd))
    modules = f"{kernels.MODULES}/{version}"
    _write(
        out / DISK,
        lambda path: _make_disk(cached, rootfs, None if own else spare, modules, path),
    )


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Make a file that is whole even if the power is cut just after it is seen."""
    write(path)
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _make_disk(
    cached: Cached, rootfs: Path, extra: Path | None, directory: str, disk: Path
) -> None:
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    for tool, package in TOOLS.items():
        if not shutil.which(tool, path=path):
            raise ImageError(f"disks are made with {tool}: apt-get install {package}")
    with disk.open("xb") as file:
        os.truncate(file.fileno(), DISK_SIZE)
    arguments = [str(rootfs), str(extra or ""), directory, str(disk)]
    done = subprocess.run(
        [*(NAMESPACES if os.geteuid() else ()), "sh", "-c", MAKE_DISK, "disk", *arguments],
        cwd=disk.parents[1],
        env={"PATH": path, "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ImageError(
            f"image {cached.meta.name}: no disk could be made of it" + tail("mke2fs", done.stderr)
        )
