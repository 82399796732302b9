"""A project whose machines are virtual machines that start scripts make, as NixOS would."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from nxc_testing.images import cpio
from nxc_testing.images.builder import ensure
from nxc_testing.images.vm import VmImage, into_vm

HERE = Path(__file__).parent
SCRIPT = HERE / "run-debian-vm"
GUEST = HERE / "nixos"
UNITS = "machine/etc/systemd/system"

ROLE = '[roles.{name}]\nstart_script = "run-{{name}}-vm"\n'


def make_project(root: Path, names: Sequence[str], vm: VmImage | None = None) -> Path:
    """What `nix build` would make for a test with some machines, and a composition of them."""
    vm = vm or into_vm(ensure(HERE / "full-kernel.toml"))
    root.mkdir(exist_ok=True)
    for name, file in (("disk.raw", vm.disk), ("vmlinuz", vm.kernel)):
        (root / name).symlink_to(file)
    hosts = "127.0.0.1 localhost\n"
    hosts += "".join(f"192.168.1.{rank} {name}\n" for rank, name in enumerate(sorted(names), 1))
    for rank, name in enumerate(sorted(names), 1):
        shutil.copy(SCRIPT, root / f"run-{name}-vm")
        (root / f"rank-{name}").write_text(f"{rank}\n")
        ram_disk = vm.initrd.read_bytes() + cpio.pack(_guest(name, rank, hosts))
        (root / f"initrd-{name}").write_bytes(ram_disk)
    (root / "composition.toml").write_text("".join(ROLE.format(name=name) for name in names))
    return root


def _guest(name: str, rank: int, hosts: str) -> dict[str, cpio.Member]:
    """What makes a system of NixOS' tests of one of ours: another shell, which is on hvc0."""
    wants = {
        "multi-user.target": "driver-shell.service",
        "basic.target": "tmp-shared.service",
    }
    return {
        f"{UNITS}/backdoor.service": cpio.link("/dev/null"),
        f"{UNITS}/backdoor-ready@.service": cpio.link("/dev/null"),
        "run/nxc/gate": cpio.file(b""),
        **{f"{UNITS}/{unit}": cpio.file((GUEST / unit).read_bytes()) for unit in wants.values()},
        **{
            f"{UNITS}/{target}.wants/{unit}": cpio.link(f"../{unit}")
            for target, unit in wants.items()
        },
        "machine/etc/driver-shell": cpio.file((GUEST / "driver-shell").read_bytes(), 0o755),
        "machine/etc/hostname": cpio.file(f"{name}\n".encode()),
        "machine/etc/hosts": cpio.file(hosts.encode()),
        "links": cpio.file(f"eth0 10.0.2.15/24\neth1 192.168.1.{rank}/24\n".encode()),
    }
