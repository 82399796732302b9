"""Whether machines can run on the host's processor, by trying it.

A /dev/kvm that can be opened says little: on some hosts it is there, and a stock kernel hangs on
it. So a kernel is booted once, and has to say that it runs; what came of it is kept for as long as
the host, its QEMU and the kernel are the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from nxc_testing.backends.qemu.command import PROGRAM, QUIET, accelerator_options
from nxc_testing.images import cpio
from nxc_testing.images.cache import Cache
from nxc_testing.images.vm import DISK, INITRD, KERNEL_FILE, VmImage

DEVICE = Path("/dev/kvm")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

PROBE_TIMEOUT = 15.0
"""Seconds; where KVM works a kernel says something within one."""

WORD = "nxc: it runs"
"""What the initial RAM disk prints where it finds /probe."""

CHOICE = "NXC_QEMU_ACCEL"
"""The variable that decides without a probe: `kvm` or `tcg`."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How machines run on this host.

    :ivar accelerator: `kvm` or `tcg`, as QEMU calls them.
    :ivar reason: in words.
    """

    accelerator: str
    reason: str


def choose(image: VmImage, cache: Cache) -> Verdict:
    """How to run machines, from what is known, or by a probe.

    :param image: what the probe boots.
    """
    if verdict := _obvious():
        return verdict
    # One boot of one image is as good as another's, if the kernel is the same.
    path = _place(cache, image)
    try:
        return Verdict(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        pass
    verdict = probe(image)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        json.dump(asdict(verdict), file)
    os.replace(file.name, path)
    return verdict


def known(cache: Cache) -> Verdict | None:
    """What was found out on this host, or can be now; None if there is nothing to boot yet."""
    if verdict := _obvious():
        return verdict
    for path in sorted(cache.images.glob(f"*/vm-*/{INITRD}")):
        image = VmImage(path.with_name(DISK), path.with_name(KERNEL_FILE), path)
        return choose(image, cache)
    return None


def probe(image: VmImage, timeout: float = PROBE_TIMEOUT, accelerator: str = "kvm") -> Verdict:
    """Boot a kernel with KVM, and see whether it runs.

    :param timeout: seconds that it is given.
    :param accelerator: another one, to see that the probe itself is right.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nxc-probe-") as directory:
        initrd = Path(directory) / "initrd"
        mark = cpio.pack({"probe": cpio.file(b"")})
        initrd.write_bytes(image.initrd.read_bytes() + mark)
        command = [
            *(PROGRAM, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-machine", "q35", "-m", "256M", *accelerator_options(accelerator)),
            *("-kernel", str(image.kernel), "-initrd", str(initrd)),
            *("-append", " ".join(QUIET), "-serial", "stdio"),
        ]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return _emulated(f"{DEVICE} is there, but a kernel hangs on it ({timeout:.0f} s)")
    said = done.stdout.decode(errors="replace")
    if WORD in said:
        took = time.monotonic() - began
        return Verdict(accelerator, f"a kernel was booted with it in {took:.1f} s")
    last = (said.strip().splitlines() or [f"status {done.returncode}"])[-1]
    return _emulated(f"{DEVICE} is there, but QEMU cannot use it: {last}")


def _obvious() -> Verdict | None:
    """The verdict where nothing has to be tried."""
    if choice := os.environ.get(CHOICE):
        return Verdict(choice, f"{CHOICE} says so")
    if not DEVICE.exists():
        return _emulated(f"this host has no {DEVICE}")
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        return _emulated(f"{DEVICE} is not for this user: become a member of the group kvm")
    return None


def _emulated(why: str) -> Verdict:
    return Verdict("tcg", f"{why}; machines are emulated, which is about ten times slower")


def _directory(cache: Cache) -> Path:
    return cache.root / "acceleration"


def _host() -> str:
    """Names the present boot of the host, with its QEMU."""
    version = subprocess.run([PROGRAM, "--version"], capture_output=True, check=True).stdout
    return hashlib.sha256(BOOT_ID.read_bytes() + version).hexdigest()[:16]


def _place(cache: Cache, image: VmImage) -> Path:
    kernel = hashlib.sha256(image.kernel.read_bytes()).hexdigest()[:16]
    return _directory(cache) / f"{_host()}-{kernel}"
