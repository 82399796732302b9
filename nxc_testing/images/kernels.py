"""Kernels for virtual machines, and the initial RAM disk that finds a machine's root.

A kernel is an image's own, where it has one in /boot, or that of the built-in recipe `kernel`.
"""

from __future__ import annotations

import gzip
import lzma
import re
import stat
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from nxc_testing.errors import ImageError
from nxc_testing.images import cpio
from nxc_testing.images.cpio import Member

GUEST = Path(__file__).with_name("guest")

WANTED = ("virtio_pci", "virtio_blk", "virtio_console", "virtio_net", "ext4")
WANTED_IF_MODULES = ("crc32c_generic",)
"""What ext4 asks for by another name; many kernels have it built in."""

WANTED_FOR_VOLUMES = ("virtiofs",)

MODULES = "usr/lib/modules"
BUSYBOX = "usr/bin/busybox"
UNITS = "run/systemd/system"
GENERATORS = "run/systemd/system-generators"

STARTED_BY = {
    "sysinit.target": ("backdoor.service",),
    "basic.target": ("backdoor-ready@basic.service",),
    "emergency.target": ("backdoor.service", "backdoor-ready@emergency.service"),
    "rescue.target": ("backdoor.service", "backdoor-ready@rescue.service"),
}
"""The driver's own units in a machine, and what starts them."""

UNPACK: Mapping[str, Callable[[bytes], bytes]] = {
    ".ko": lambda data: data,
    ".ko.gz": gzip.decompress,
    ".ko.xz": lzma.decompress,
}
"""How modules are kept, by the ends of their names; busybox loads plain ones only."""


@dataclass(slots=True)
class Kernel:
    """A kernel in an image.

    :ivar version: as `uname -r` has it.
    :ivar source: the image's root file system.
    """

    version: str
    source: Path
    image: bytes = b""
    modules: dict[str, bytes] = field(default_factory=dict)
    dependencies: dict[str, list[str]] = field(default_factory=dict)
    built_in: set[str] = field(default_factory=set)

    def order(self, wanted: tuple[str, ...]) -> list[str]:
        """Modules and what they depend on, in the order in which they can be loaded.

        :return: their paths below the directory of modules.
        :raise ImageError: if the kernel has one neither as a module nor built in.
        """
        order: list[str] = []
        paths = {_module(path): path for path in self.dependencies}
        for name in wanted:
            if name in paths:
                # modules.dep has for each module all that it needs, the last one first.
                for path in (*reversed(self.dependencies[paths[name]]), paths[name]):
                    if path not in order:
                        order.append(path)
            elif name not in self.built_in:
                raise ImageError(f"kernel {self.version} has no {name}: virtual machines need it")
        return order


def find(rootfs: Path) -> str | None:
    """The version of the newest kernel in a root file system; None if it has none.

    :param rootfs: a tar archive.
    """
    with tarfile.open(rootfs) as tar:
        names = (member.name.removeprefix("./") for member in tar)
        versions = [name.removeprefix("boot/vmlinuz-") for name in names if _is_kernel(name)]
    return max(versions, key=_numbers, default=None)


def read(rootfs: Path, version: str) -> Kernel:
    """A kernel, with the modules that the RAM disk is made of.

    :raise ImageError: if something of it is missing.
    """
    kernel = Kernel(version, rootfs)
    base = f"{MODULES}/{version}"
    members = dict(
        _contents(
            rootfs,
            lambda name: (
                name == f"boot/vmlinuz-{version}"
                or (name.startswith(base) and (".ko" in name or "/modules." in name))
            ),
        )
    )
    try:
        kernel.image = members[f"boot/vmlinuz-{version}"]
        dependencies = members[f"{base}/modules.dep"].decode()
        built_in = members[f"{base}/modules.builtin"].decode()
    except KeyError as error:
        raise ImageError(f"kernel {version}: the image has no {error.args[0]}") from error
    for line in dependencies.splitlines():
        path, _, needs = line.partition(":")
        kernel.dependencies[path] = needs.split()
    kernel.built_in = {_module(path) for path in built_in.split()}
    kernel.modules = {
        name.removeprefix(f"{base}/"): data for name, data in members.items() if ".ko" in name
    }
    return kernel


def initrd(kernel: Kernel, busybox: bytes, *, all_units: bool) -> bytes:
    """The RAM disk that machines of an image share; each has a second one of its own behind it.

    :param busybox: a static one.
    :param all_units: whether the system boots with every unit that it has.
    :raise ImageError: if the kernel lacks what is needed.
    """
    members: dict[str, Member] = {
        **dict.fromkeys(("dev", "proc", "sys", "root", "run"), cpio.DIRECTORY),
        "bin/busybox": cpio.file(busybox, 0o755),
        "init": cpio.file((GUEST / "init").read_bytes(), 0o755),
        "run/systemd/system.conf.d/nxc.conf": cpio.file((GUEST / "timeouts.conf").read_bytes()),
        "run/nxc/gate": Member(stat.S_IFIFO | 0o600),
        "run/nxc/shells": cpio.file((GUEST / "shells").read_bytes(), 0o755),
        **{
            f"{UNITS}/{unit.name}": cpio.file(unit.read_bytes()) for unit in GUEST.glob("*.service")
        },
        **{
            f"{UNITS}/{target}.wants/{name}": cpio.link(f"../{_file_of(name)}")
            for target, units in STARTED_BY.items()
            for name in units
        },
    }
    modules = {_module(path) for path in kernel.dependencies}
    if_modules = tuple(name for name in WANTED_IF_MODULES if name in modules)
    first = kernel.order((*if_modules, *WANTED))
    later = [path for path in kernel.order(WANTED_FOR_VOLUMES) if path not in first]
    for name, paths in (("order", first), ("order.virtiofs", later)):
        lines = []
        for path in paths:
            inside = f"modules/{_module(path)}.ko"
            members[inside] = cpio.file(_unpacked(path, kernel))
            lines.append(f"/{inside}\n")
        members[f"modules/{name}"] = cpio.file("".join(lines).encode())
    if not all_units:
        members |= dict(_masks())
    return cpio.pack(members)


def busybox_of(rootfs: Path) -> bytes:
    """The busybox of a root file system.

    :raise ImageError: if it has none.
    """
    for _, data in _contents(rootfs, lambda name: name in (BUSYBOX, "bin/busybox")):
        return data
    raise ImageError(f"{rootfs} has no busybox")


def _file_of(unit: str) -> str:
    """The file of a unit; instances share their template's."""
    return re.sub(r"@.*\.", "@.", unit)


def _masks() -> Iterator[tuple[str, Member]]:
    """What keeps systemd from starting what a test's machine does not need."""
    for line in (GUEST / "unneeded").read_text().splitlines():
        words = line.split()
        if words and words[0] == "generator":
            yield f"{GENERATORS}/{words[1]}", cpio.link("/dev/null")
        elif words and words[0] != "#":
            yield f"{UNITS}/{words[0]}", cpio.link("/dev/null")


def _contents(rootfs: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(rootfs) as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            if member.isfile() and wanted(name):
                content = tar.extractfile(member)
                assert content is not None
                yield name, content.read()


def _unpacked(path: str, kernel: Kernel) -> bytes:
    ending = path[path.index(".ko") :]
    if ending not in UNPACK:
        raise ImageError(f"kernel {kernel.version}: {path} is packed in a way that is not known")
    return UNPACK[ending](kernel.modules[path])


def _module(path: str) -> str:
    """A module's name by its path: the kernel knows no dashes."""
    return PurePosixPath(path).name.partition(".ko")[0].replace("-", "_")


def _is_kernel(name: str) -> bool:
    return name.startswith("boot/vmlinuz-") and name.count("/") == 1


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]
