"""An image becomes what a virtual machine boots: once, whole, and with a kernel."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nxc_testing.errors import ImageError
from nxc_testing.images import Image, kernels
from nxc_testing.images.builder import ensure
from nxc_testing.images.cache import Cache
from nxc_testing.images.kernels import Kernel
from nxc_testing.images.vm import KERNEL, VmImage, into_vm


@pytest.fixture(scope="module")
def vm(small: Image) -> VmImage:
    """A small image, made bootable."""
    return into_vm(small)


def debugfs(disk: Path, command: str) -> str:
    """Look into a disk's file system."""
    found = shutil.which("debugfs", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert found
    return subprocess.run(
        [found, "-R", command, disk], capture_output=True, text=True, check=True
    ).stdout


def directories(image: Image) -> list[Path]:
    """What was made of an image."""
    return sorted(image.rootfs.parent.glob("vm-*"))


def test_its_disk_has_the_images_files(vm: VmImage) -> None:
    assert debugfs(vm.disk, "cat /etc/small") == "1\n"
    assert debugfs(vm.disk, "stat /usr/bin/sudo").split("Mode:")[1].split()[0] == "04755"


def test_it_boots_a_kernel_whose_modules_it_has(vm: VmImage, cache: Cache) -> None:
    version = kernels.find(ensure(KERNEL, cache=cache).rootfs)
    assert version
    assert version.encode() in vm.kernel.read_bytes()[:65536]
    assert "modules.dep" in debugfs(vm.disk, f"ls /usr/lib/modules/{version}")


def test_an_image_has_no_kernel_unless_it_brings_one(small: Image, cache: Cache) -> None:
    assert kernels.find(small.rootfs) is None
    own = ensure(KERNEL, cache=cache)
    made = into_vm(own)
    version = kernels.find(own.rootfs)
    assert version
    assert f"vmlinuz-{version}" in debugfs(made.disk, "ls /boot")


def test_it_is_made_once(small: Image, vm: VmImage) -> None:
    told: list[str] = []
    assert into_vm(small, lambda _, text: told.append(text)) == vm
    assert told == []


def test_another_build_of_the_image_has_another(cache: Cache, small_recipe: Path) -> None:
    before = into_vm(ensure(small_recipe, cache=cache))
    after = into_vm(ensure(small_recipe, cache=cache, rebuild=True))
    assert after.disk != before.disk
    assert after.disk.exists()


def test_what_was_cut_off_leaves_nothing_that_looks_whole(small: Image, cache: Cache) -> None:
    for directory in directories(small):
        shutil.rmtree(directory)
    code = (
        "import sys; from pathlib import Path; from nxc_testing.images.cache import Cache\n"
        "from nxc_testing.images.vm import into_vm\n"
        f"into_vm(Cache(Path({str(cache.root)!r})).find({small.digest!r}).image)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    while not list(cache.images.glob(f".building-{small.digest}-*/vm/disk.raw")):
        assert process.poll() is None
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert directories(small) == []
    made = into_vm(small)
    assert debugfs(made.disk, "cat /etc/small") == "1\n"
    assert not list(cache.images.glob(f".building-{small.digest}-*"))


def test_what_is_missing_is_named(
    small: Image, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = directories(small)
    for directory in before:
        shutil.rmtree(directory)
    monkeypatch.setattr("nxc_testing.images.vm.TOOLS", {"mke2fs-of-nobody": "e2fsprogs"})
    with pytest.raises(ImageError, match="apt-get install e2fsprogs"):
        into_vm(small)
    assert directories(small) == []


def test_modules_come_after_what_they_need() -> None:
    kernel = Kernel("6.1", Path())
    kernel.dependencies = {
        "kernel/a/virtio_pci.ko.xz": ["kernel/b/virtio-ring.ko.xz", "kernel/b/virtio.ko.xz"],
        "kernel/b/virtio-ring.ko.xz": ["kernel/b/virtio.ko.xz"],
        "kernel/b/virtio.ko.xz": [],
    }
    kernel.built_in = {"ext4"}
    assert kernel.order(("ext4", "virtio_ring", "virtio_pci")) == [
        "kernel/b/virtio.ko.xz",
        "kernel/b/virtio-ring.ko.xz",
        "kernel/a/virtio_pci.ko.xz",
    ]


def test_a_kernel_that_lacks_a_module_is_refused() -> None:
    with pytest.raises(ImageError, match="has no virtio_blk"):
        Kernel("6.1", Path()).order(("virtio_blk",))
